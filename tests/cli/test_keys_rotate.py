"""A rotation from the shell: one step at a time, too early is refused, key file and draft go together."""

from dataclasses import replace
from pathlib import Path

import pytest

from messaging.ambient import real_ambient
from messaging.cli import keys_rotate, trust_change, trust_sign
from messaging.core.ambient import Ambient
from messaging.security.keyfile import load_keyring
from tests.support.ceremony import Ceremony

DAY_MS = 24 * 3_600_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far ahead of the real time the verbs are."""
    ahead = [0]

    def ambient() -> Ambient:
        real = real_ambient()
        return replace(real, now_ms=lambda: real.now_ms() + ahead[0])

    for module in (keys_rotate, trust_change, trust_sign):
        monkeypatch.setattr(module, "real_ambient", ambient)
    return ahead


def states(ceremony: Ceremony) -> list[str]:
    return [entry["state"] for entry in ceremony.content["services"]["shop"]["sign"]]


def test_the_whole_way(ceremony: Ceremony, clock: list[int]) -> None:
    path = ceremony.keys / "shop.key"
    before = load_keyring(path)
    seen = []

    published = ceremony.rotate("shop")
    ceremony.sign()
    seen.append(states(ceremony))
    early = ceremony.rotate("shop", code=1)
    for ahead in (61_000, 8 * DAY_MS, 99 * DAY_MS):
        clock[0] = ahead
        said = ceremony.rotate("shop")
        ceremony.sign()
        seen.append(states(ceremony))

    after = load_keyring(path)
    assert seen == [["active", "next"], ["retiring", "active"], ["retired", "active"], ["active"]]
    assert "install it with every replica" in published
    assert "Next: activate" in published
    assert "too early to activate keys of shop" in early
    assert "This rotation is complete." in said
    assert (len(after.signing), len(after.decryption)) == (1, 1)
    assert after.signing[0].kid != before.signing[0].kid
    assert not before.decryption.keys() & after.decryption.keys()


def test_an_operator_rotates_with_group_key_and_passphrase(ceremony: Ceremony, clock: list[int]) -> None:
    words = ("--passphrase-file", ceremony.home / "words")

    ceremony.rotate("ops:alice", *words)
    ceremony.sign()
    clock[0] = 61_000
    ceremony.rotate("ops:alice", *words)
    ceremony.sign()

    group = ceremony.content["groups"]["group:ops"]["enc"]
    assert [entry["state"] for entry in group] == ["retiring", "active"]


def test_where_the_key_file_is_elsewhere_later_steps_need_none(ceremony: Ceremony, clock: list[int]) -> None:
    ceremony.rotate("shop")
    ceremony.sign()
    (ceremony.keys / "shop.key").unlink()
    clock[0] = 61_000

    ceremony.rotate("shop")
    ceremony.sign()
    clock[0] = 200 * DAY_MS
    ceremony.rotate("shop")
    said = ceremony.call("trust", "discard", "--trust", ceremony.trust)

    assert states(ceremony) == ["retiring", "active"]
    assert "is gone" in said


def test_a_planned_time_needs_one_signature(ceremony: Ceremony) -> None:
    said = ceremony.rotate("shop", "--planned", "2031-01-01T00:00:00")
    ceremony.sign()

    entries = ceremony.content["services"]["shop"]["sign"]
    assert "Next: retire" in said
    assert [entry["state"] for entry in entries] == ["active", "active"]
    assert entries[0]["not_after"] == entries[1]["not_before"] + 600_000
    assert "finish that one first" in ceremony.rotate("shop", "--planned", "2032-01-01T00:00:00", code=2)


def test_a_lost_key_is_replaced_in_one_step(ceremony: Ceremony) -> None:
    kid = ceremony.content["services"]["shop"]["sign"][0]["kid"]
    ceremony.change("revoke", kid, "--reason", "compromise")
    ceremony.sign()

    said = ceremony.rotate("shop")
    ceremony.sign()

    assert "Next: retire" in said
    assert states(ceremony)[-1] == "active"


def test_only_one_step_of_an_identity_in_a_draft(ceremony: Ceremony) -> None:
    ceremony.rotate("shop")
    ceremony.rotate("web")

    assert "changes keys of 'shop' already" in ceremony.rotate("shop", code=2)


def test_keys_of_a_draft_that_came_to_nothing_are_used(ceremony: Ceremony) -> None:
    ceremony.rotate("shop")
    kids = [key.kid for key in load_keyring(ceremony.keys / "shop.key").signing]
    ceremony.change("discard")

    ceremony.rotate("shop")

    assert [key.kid for key in load_keyring(ceremony.keys / "shop.key").signing] == kids


def test_looking_changes_nothing(ceremony: Ceremony) -> None:
    assert "Next for shop: publish" in ceremony.rotate("shop", "--dry-run")
    assert not ceremony.folder.has_draft


def test_a_new_rotation_waits_for_the_old_keys_unless_told(ceremony: Ceremony, clock: list[int]) -> None:
    for ahead in (0, 61_000, 8 * DAY_MS):
        clock[0] = ahead
        ceremony.rotate("shop")
        ceremony.sign()

    assert "a new rotation: --begin" in ceremony.rotate("shop", code=1)
    ceremony.rotate("shop", "--begin")
    ceremony.sign()
    assert states(ceremony) == ["retired", "active", "next"]


class TestTheKeyFileAlone:
    def rotate(self, ceremony: Ceremony, identity: str = "shop", *options: str, code: int = 0) -> str:
        where = ("--keys", ceremony.keys, "--trust", ceremony.keys)
        return ceremony.call("keys", "rotate", identity, *where, *options, code=code)

    def test_gets_new_keys_and_says_how_to_publish_them(self, ceremony: Ceremony) -> None:
        said = self.rotate(ceremony)

        assert len(load_keyring(ceremony.keys / "shop.key").signing) == 2
        assert "messaging keys export shop -o shop.json" in said

    @pytest.mark.parametrize("options", [("--dry-run",), ("--begin",), ("--planned", "2030-01-01T02:00:00")])
    def test_is_left_as_it_is_where_the_bundle_would_have_to_be_asked(
        self, ceremony: Ceremony, options: tuple[str, ...]
    ) -> None:
        before = (ceremony.keys / "shop.key").read_bytes()

        said = self.rotate(ceremony, "shop", *options, code=2)

        assert "name its folder with --trust" in said
        assert (ceremony.keys / "shop.key").read_bytes() == before

    def test_must_be_there(self, ceremony: Ceremony) -> None:
        assert "no key file at" in self.rotate(ceremony, "billing", code=2)


def test_what_makes_no_sense_says_why(ceremony: Ceremony) -> None:
    (ceremony.keys / "shop.key").unlink()

    assert "is no identity" in ceremony.rotate("Shop", code=2)
    assert "messaging keys export shop" in ceremony.rotate("shop", code=2)
    assert Path(ceremony.trust / "trust.bundle").exists()
