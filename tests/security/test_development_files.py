import json
from pathlib import Path

import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP, TrustBundle
from messaging.security.development import LIFE_MS
from messaging.security.development_files import ROOT_FILE, Contract, init_development
from messaging.security.keyfile import keyring_file, load_keyring
from messaging.security.trust import BUNDLE_FILE, open_trust
from tests.support.realm import Clock, Realm

PLACED = Subscriptions(events=frozenset({("orders.order_placed", 1)}))
ANYTHING = Contract(handles=Subscriptions())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def bundle_of(folder: Path, clock: Clock, name: str = "users") -> TrustBundle:
    return open_trust(load_keyring(folder / keyring_file(name)), folder / BUNDLE_FILE, ambient=clock.ambient).current


def allowed(bundle: TrustBundle, sender: str, name: str) -> bool:
    return bundle.policy.rule_for(sender, Kind.COMMAND, name, name.partition(".")[0]) is not None


def test_one_run_makes_everything(folder: Path, clock: Clock) -> None:
    report = init_development(
        folder, {"users": Contract(handles=PLACED), "orders": ANYTHING}, ambient=clock.ambient, operator="alice"
    )

    bundle = bundle_of(folder, clock)
    assert {path.name for path in folder.iterdir()} == {
        ".gitignore", "users.key", "orders.key", "ops.alice.key", ROOT_FILE, BUNDLE_FILE,
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.key"))
    assert (folder / ROOT_FILE).stat().st_mode & 0o077 == 0
    assert "*" in (folder / ".gitignore").read_text().splitlines()
    assert bundle.is_development
    assert bundle.expires_at_ms == clock.now_ms + LIFE_MS == report.expires_at_ms
    assert bundle.policy.audience_of_event("orders.order_placed") == ("users",)
    assert allowed(bundle, "users", "orders.place_order")
    assert allowed(bundle, "ops:alice", "orders.place_order")
    assert bundle.policy.may_replay("ops:alice", "orders.place_order", "orders", force=True)
    assert OPS_GROUP in load_keyring(folder / "ops.alice.key").groups
    assert (report.realm, report.version, report.folder) == (bundle.realm, 1, folder)
    assert {path.name for path in report.created} >= {"users.key", "orders.key", "ops.alice.key"}
    assert report.kept == ()


def test_a_second_run_adds_a_service_and_keeps_all_keys(folder: Path, clock: Clock) -> None:
    init_development(folder, {"users": Contract(handles=PLACED)}, ambient=clock.ambient)
    before = (folder / "users.key").read_bytes()

    report = init_development(folder, {"orders": ANYTHING, "users": Contract(handles=PLACED)}, ambient=clock.ambient)

    bundle = bundle_of(folder, clock)
    assert (folder / "users.key").read_bytes() == before
    assert (report.version, bundle.version) == (2, 2)
    assert bundle.services == ("orders", "users")
    assert {path.name for path in report.kept} == {"users.key", "ops.dev.key"}
    assert [path.name for path in report.created] == ["orders.key"]


def test_a_service_of_an_earlier_run_is_remembered_without_its_file(folder: Path, clock: Clock) -> None:
    init_development(folder, {"users": Contract(handles=PLACED)}, ambient=clock.ambient)
    (folder / "users.key").rename(folder.parent / "users.key")

    init_development(folder, {"orders": ANYTHING}, ambient=clock.ambient)

    bundle = bundle_of(folder, clock, "orders")
    assert bundle.services == ("orders", "users")
    assert bundle.policy.audience_of_event("orders.order_placed") == ("users",)
    assert allowed(bundle, "users", "orders.place_order")


def test_a_contract_that_says_what_it_sends_gets_just_that(folder: Path, clock: Clock) -> None:
    contract = Contract(handles=Subscriptions(), sends=frozenset({"orders.place_order", "billing.charge"}))
    init_development(folder, {"users": contract, "orders": ANYTHING}, ambient=clock.ambient)
    first = bundle_of(folder, clock)

    init_development(folder, {"billing": ANYTHING}, ambient=clock.ambient)

    second = bundle_of(folder, clock)
    assert allowed(first, "users", "orders.place_order")
    assert not allowed(first, "users", "orders.cancel")
    assert not allowed(first, "users", "billing.charge")
    assert allowed(second, "users", "billing.charge")
    assert allowed(second, "orders", "billing.anything")


def test_a_lost_bundle_is_made_again(folder: Path, clock: Clock) -> None:
    init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)
    (folder / BUNDLE_FILE).unlink()

    report = init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)

    assert report.version == 2
    assert bundle_of(folder, clock).version == 2


def test_an_existing_folder_keeps_its_mode_and_its_ignore_file(folder: Path, clock: Clock) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / ".gitignore").write_text("mine\n")

    init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)

    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("name", [BUNDLE_FILE, "orders.key"])
def test_nothing_is_written_beside_keys_of_another_kind(folder: Path, clock: Clock, name: str) -> None:
    folder.mkdir()
    (folder / name).write_bytes(Realm().change())

    with pytest.raises(ConfigurationError, match="another folder"):
        init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)

    assert not (folder / "users.key").exists()


def test_a_bundle_of_another_root_is_refused(folder: Path, clock: Clock) -> None:
    init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)
    (folder / BUNDLE_FILE).write_bytes(Realm().change())

    with pytest.raises(ConfigurationError, match="root keys"):
        init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)


def test_a_root_file_that_is_not_for_development_is_refused(folder: Path, clock: Clock) -> None:
    init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)
    content = json.loads((folder / ROOT_FILE).read_text())
    (folder / ROOT_FILE).write_text(json.dumps(content | {"realm": "prod"}))

    with pytest.raises(ConfigurationError, match="not for development"):
        init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)


def test_a_key_file_of_another_realm_is_refused(folder: Path, tmp_path: Path, clock: Clock) -> None:
    init_development(folder, {"users": ANYTHING}, ambient=clock.ambient)
    init_development(tmp_path / "other", {"orders": ANYTHING}, ambient=clock.ambient)
    (tmp_path / "other" / "orders.key").rename(folder / "orders.key")

    with pytest.raises(ConfigurationError, match="no key file of 'orders'"):
        init_development(folder, {"orders": ANYTHING}, ambient=clock.ambient)


@pytest.mark.parametrize(("services", "operator"), [({"Users": ANYTHING}, "dev"), ({"users": ANYTHING}, "Dev User")])
def test_names_that_break_the_grammar_are_refused(
    folder: Path, clock: Clock, services: dict[str, Contract], operator: str
) -> None:
    with pytest.raises(ConfigurationError, match="cannot name"):
        init_development(folder, services, ambient=clock.ambient, operator=operator)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigurationError, match="cannot make the keys folder"):
        init_development(tmp_path / "file" / "keys", {"users": ANYTHING}, ambient=clock.ambient)
