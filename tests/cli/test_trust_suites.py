"""From suite 1 to suite 2 on the command line, in the steps of docs/trust.md."""

import json
from typing import Any

import pytest

from messaging.ambient import real_ambient
from messaging.cli import keys_rotate, trust_change, trust_sign
from messaging.core.ambient import Ambient
from messaging.security.bundle_format import verify_bundle
from messaging.security.keyfile import load_keyring
from tests.support.ceremony import PASSPHRASE, Ceremony
from tests.support.installation import Installation

MINUTE_S = 60
EVERYBODY = ("shop", "web", "ops:alice")


class Later:
    """The real clock, moved forward when told."""

    def __init__(self) -> None:
        self.by_ms = 0

    def ambient(self) -> Ambient:
        real = real_ambient()
        return Ambient(
            now_ms=lambda: real.now_ms() + self.by_ms,
            monotonic_s=real.monotonic_s,
            new_id=real.new_id,
            jitter=real.jitter,
        )

    def advance(self, seconds: float) -> None:
        self.by_ms += int(seconds * 1000)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    clock = Later()
    for module in (keys_rotate, trust_change, trust_sign):
        monkeypatch.setattr(module, "real_ambient", clock.ambient)
    return clock


def words(ceremony: Ceremony, identity: str) -> tuple[object, ...]:
    return ("--passphrase-file", ceremony.home / "words") if identity.startswith("ops:") else ()


def add_keys(ceremony: Ceremony, later: Later) -> None:
    """Give everybody an active key of suite 2."""
    for identity in EVERYBODY:
        ceremony.rotate(identity, "--suite", 2, *words(ceremony, identity))
    ceremony.sign()
    later.advance(2 * MINUTE_S)
    for identity in EVERYBODY:
        ceremony.rotate(identity, *words(ceremony, identity))
    ceremony.sign()
    later.advance(2 * MINUTE_S)


def suites_of(entries: list[dict[str, Any]]) -> list[int]:
    return [{2: 1, 3: 2}[entry["alg"]] for entry in entries]


def test_the_whole_migration(ceremony: Ceremony, later: Later) -> None:
    add_keys(ceremony, later)

    said = []
    for suites, wait_s in (("1,2", 2 * MINUTE_S), ("2,1", 8 * 24 * 3600), ("2", 0)):
        said.append(ceremony.change("suites", suites, "--days", 30))
        ceremony.sign()
        later.advance(wait_s)

    assert "suite 2 (post-quantum) is accepted" in said[0]
    assert "messages are sealed in suite 2 (post-quantum); they were in suite 1" in said[1]
    assert "suite 1 is no longer accepted" in said[2]
    assert ceremony.content["suites"] == [2]
    for entry in (*ceremony.content["services"].values(), *ceremony.content["groups"].values()):
        assert suites_of(entry["enc"]) == [1, 2]
        assert [key["state"] for key in entry["enc"]] == ["retiring", "active"]
    shown = ceremony.call("trust", "show", ceremony.trust)
    assert "suites 2: messages are sealed in suite 2" in shown
    assert "encrypt, suite 2" in shown
    assert ceremony.json("trust", "show", ceremony.trust)["suites"] == [2]


def test_keys_of_a_suite_stand_beside_those_in_use(ceremony: Ceremony) -> None:
    said = ceremony.rotate("shop", "--suite", 2)
    ceremony.sign()

    entry = ceremony.content["services"]["shop"]
    keyring = load_keyring(ceremony.keys / "shop.key")
    assert "keys of suite 2 are published as next" in said
    assert "install it with every replica" in said
    assert [(key["alg"], key["state"]) for key in entry["enc"]] == [(2, "active"), (3, "next")]
    assert len(entry["sign"]) == 1
    assert [key.suite for key in keyring.decryption.values()] == [1, 2]


def test_a_draft_that_came_to_nothing_costs_no_second_key(ceremony: Ceremony) -> None:
    ceremony.rotate("shop", "--suite", 2)
    ceremony.change("discard")

    ceremony.rotate("shop", "--suite", 2)

    keyring = load_keyring(ceremony.keys / "shop.key")
    kids = [entry["kid"] for entry in ceremony.drafted["services"]["shop"]["enc"]]
    assert [kid.hex() for kid in keyring.decryption] == kids


def test_an_operator_gets_one_for_the_group_too(ceremony: Ceremony) -> None:
    ceremony.rotate("ops:alice", "--suite", 2, "--passphrase-file", ceremony.home / "words")

    keyring = load_keyring(ceremony.keys / "ops.alice.key", passphrase=PASSPHRASE.encode())
    assert [key.suite for key in keyring.groups["group:ops"].values()] == [1, 2]
    assert suites_of(ceremony.drafted["groups"]["group:ops"]["enc"]) == [1, 2]


def test_where_only_the_key_file_is(ceremony: Ceremony) -> None:
    elsewhere = ("keys", "rotate", "shop", "--keys", ceremony.keys, "--trust", ceremony.home / "nowhere")

    said = ceremony.call(*elsewhere, "--suite", 2)
    ceremony.call("keys", "export", "shop", "--keys", ceremony.keys, "-o", ceremony.home / "both.json")
    ceremony.change("add", ceremony.home / "both.json")

    assert "messaging trust add shop.json" in said
    assert suites_of(ceremony.drafted["services"]["shop"]["enc"]) == [1, 2]
    assert "has keys of suite 2 already" in ceremony.call(*elsewhere, "--suite", 2, code=2)


@pytest.mark.parametrize("more", [("--begin",), ("--dry-run",), ("--planned", "2030-01-01T00:00:00")])
def test_keys_of_a_suite_come_alone(ceremony: Ceremony, more: tuple[str, ...]) -> None:
    assert "leave out" in ceremony.rotate("shop", "--suite", 2, *more, code=2)


def test_keys_of_a_suite_need_the_key_file(ceremony: Ceremony) -> None:
    (ceremony.keys / "shop.key").unlink()

    assert "no key file at" in ceremony.rotate("shop", "--suite", 2, code=2)


class TestTrustSuites:
    @pytest.mark.parametrize("numbers", ["", "3", "1,1", "1, 2", "x", "02"])
    def test_takes_a_list_of_suites(self, ceremony: Ceremony, numbers: str) -> None:
        assert "is no list of suites" in ceremony.change("suites", numbers, code=2)

    def test_names_who_has_no_key(self, ceremony: Ceremony) -> None:
        assert "no active key of suite 2: shop, web, ops:alice, group:ops" in ceremony.change("suites", "2,1", code=2)
        assert not ceremony.folder.has_draft

    def test_says_what_comes_first(self, ceremony: Ceremony, later: Later) -> None:
        add_keys(ceremony, later)

        assert "messaging trust suites 1,2" in ceremony.change("suites", "2,1", code=2)

    def test_says_from_when(self, ceremony: Ceremony, later: Later) -> None:
        add_keys(ceremony, later)
        ceremony.change("suites", "1,2")
        ceremony.sign()

        assert "too early for suites 2,1: from " in ceremony.change("suites", "2,1", code=1)
        later.advance(2 * MINUTE_S)
        ceremony.change("suites", "2,1")


class TestGenerate:
    def test_makes_keys_of_both_suites(self, ceremony: Ceremony) -> None:
        found = ceremony.json("keys", "generate", "billing", "--keys", ceremony.keys, "--suite", 2)

        assert [len(key["pub"]) // 2 for key in found["enc"]] == [32, 1216]

    def test_shortens_what_fills_a_screen(self, ceremony: Ceremony) -> None:
        said = ceremony.call("keys", "generate", "billing", "--keys", ceremony.keys, "--suite", 2)

        assert "… (1216 bytes)" in said
        assert all(len(text) < 200 for text in said.splitlines())


class TestDevelopment:
    def test_keys_of_suite_2_from_the_start(self, offline: Installation) -> None:
        folder = offline.folder / "quantum"
        first = offline.call("trust", "init", "--dev", str(folder), "--from", "shop:shop", "--suite", "2")
        again = offline.call("trust", "init", "--dev", str(folder), "--from", "shop:shop")
        other = offline.call("trust", "init", "--dev", str(folder), "--from", "shop:shop", "--suite", "1")

        keyring = load_keyring(folder / "shop.key")
        raw = (folder / "trust.bundle").read_bytes()
        bundle = verify_bundle(raw, roots=keyring.roots, threshold=1, realm=keyring.realm)
        assert (first.exit_code, again.exit_code, other.exit_code) == (0, 0, 2), first.output
        assert "name another folder for suite 1" in other.stderr
        assert bundle.suites == (2,)
        assert {entry.key.suite for entries in bundle.encryption.values() for entry in entries} == {2}
        assert json.loads((folder / "trust.root").read_text())["version"] == 2
