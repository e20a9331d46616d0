"""Where bundles are made: drafts, signatures one by one, and the bundle replaced as a whole."""

from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle_edit import allow
from messaging.security.bundle_format import add_signature, sign_bundle
from messaging.security.keys import SigningKey
from messaging.security.private_files import write_file
from messaging.security.public_part import part_of
from messaging.security.trust_folder import DRAFT_FILE, TrustFolder, read_content
from tests.support.trusting import NOW, Trusting, first


@pytest.fixture
def made(tmp_path: Path) -> Trusting:
    return first(tmp_path, threshold=2)


def change(folder: TrustFolder, *, name: str = "orders.cancel_order", now_ms: int = NOW) -> None:
    folder.propose(allow(folder.content(), sender="users", kind="command", name=name), now_ms=now_ms)


def version_in_force(folder: TrustFolder) -> int:
    raw = folder.current()
    assert raw is not None
    return folder.verified(raw).version


def test_signatures_are_added_until_the_threshold_holds(made: Trusting) -> None:
    change(made.folder)

    one = made.folder.sign(made.roots[0], now_ms=NOW)
    again = made.folder.sign(made.roots[0], now_ms=NOW)
    before = version_in_force(made.folder)
    two = made.folder.sign(made.roots[1], now_ms=NOW)

    assert (one.signed, again.signed, two.signed) == (1, 1, 2)
    assert (one.is_in_force, two.is_in_force) == (False, True)
    assert (before, version_in_force(made.folder), two.version) == (1, 2, 2)
    assert not made.folder.has_draft


def test_every_bundle_that_was_in_force_is_kept(made: Trusting) -> None:
    change(made.folder)
    made.sign()

    assert [content["version"] for content in made.folder.history()] == [1, 2]
    assert sorted(path.name for path in (made.path / "bundles").iterdir()) == ["00000001.bundle", "00000002.bundle"]


def test_without_an_archive_the_bundle_in_force_is_all_the_history(made: Trusting) -> None:
    for path in (made.path / "bundles").iterdir():
        path.unlink()
    (made.path / "bundles").rmdir()

    assert [content["version"] for content in made.folder.history()] == [1]


def test_changes_gather_in_one_draft(made: Trusting) -> None:
    change(made.folder, name="orders.a")
    change(made.folder, name="orders.b")

    content = read_content(made.folder.draft())

    assert content["version"] == 2
    assert {"orders.a", "orders.b"} <= {rule["name"] for rule in content["policy"]["send"]}


def test_a_draft_that_has_signatures_is_not_changed_behind_them(made: Trusting) -> None:
    change(made.folder)
    made.folder.sign(made.roots[0], now_ms=NOW)

    with pytest.raises(ConfigurationError, match="1 of 2 signatures, which a change would undo"):
        made.folder.content()
    made.folder.discard()

    assert made.folder.content()["version"] == 1


def test_what_no_service_would_accept_never_becomes_a_draft(made: Trusting) -> None:
    broken = allow(made.folder.content(), sender="nobody", kind="command", name="orders.x")

    with pytest.raises(ConfigurationError, match="'nobody' has no keys"):
        made.folder.propose(broken, now_ms=NOW)

    assert not made.folder.has_draft


def test_a_root_of_another_realm_does_not_sign(made: Trusting) -> None:
    change(made.folder)

    with pytest.raises(ConfigurationError, match="is not among those of"):
        made.folder.sign(SigningKey.generate("test"), now_ms=NOW)


def test_an_old_draft_is_not_signed(made: Trusting) -> None:
    change(made.folder)

    with pytest.raises(ConfigurationError, match="has expired"):
        made.folder.sign(made.roots[0], now_ms=NOW + 8 * 24 * 3_600_000)


def test_a_draft_that_was_overtaken_is_not_signed(made: Trusting) -> None:
    change(made.folder)
    stale = made.folder.draft()
    made.sign()
    write_file(made.path / DRAFT_FILE, stale)

    with pytest.raises(ConfigurationError, match="is not newer than the bundle in force"):
        made.folder.sign(made.roots[0], now_ms=NOW)


def test_the_first_draft_needs_no_bundle_before_it(tmp_path: Path) -> None:
    made = first(tmp_path)
    content = made.folder.content()
    (tmp_path / "trust.bundle").unlink()

    with pytest.raises(ConfigurationError, match="makes the first draft"):
        made.folder.content()
    assert [content["version"] for content in made.folder.history()] == [1]
    made.put(content)

    assert version_in_force(made.folder) == 1


def test_a_bundle_of_other_roots_is_not_built_upon(made: Trusting) -> None:
    raw = made.folder.current()
    assert raw is not None
    forged = add_signature(sign_bundle(read_content(raw), []), SigningKey.generate("test"))
    write_file(made.path / "trust.bundle", forged, replace=True)

    with pytest.raises(ConfigurationError, match="is signed by 0 of the root keys"):
        made.folder.content()


def test_public_parts_are_remembered(made: Trusting) -> None:
    found = made.folder.part("ops:alice")

    assert found is not None
    assert [key.kid for key in found.signing] == [key.kid for key in part_of(made.keyrings["ops:alice"]).signing]
    assert made.folder.part("nobody") is None


def test_missing_and_unreadable_files_say_what_to_do(made: Trusting, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing waits for a signature"):
        made.folder.draft()
    (tmp_path / DRAFT_FILE).mkdir()
    with pytest.raises(ConfigurationError, match="cannot read"):
        made.folder.draft()
    for path in (tmp_path / "parts").iterdir():
        path.unlink()
    (tmp_path / "parts").rmdir()
    (tmp_path / "parts").touch()
    with pytest.raises(ConfigurationError, match="cannot make"):
        made.folder.keep_part(b"", part_of(made.keyrings["users"]))
    with pytest.raises(ConfigurationError, match="messaging trust root pin"):
        TrustFolder(tmp_path / "nowhere")
