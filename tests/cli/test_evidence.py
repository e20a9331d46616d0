"""A proof in one file, made here, checked by somebody who has nothing of ours."""

import json
from pathlib import Path

import pytest

from messaging.security.roots import pins_of, write_pins
from tests.support.ceremony import Ceremony
from tests.support.dead_shop import bury, clear
from tests.support.installation import Installation
from tests.support.sealed_file import sealed_file


def exported(ceremony: Ceremony, *arguments: object) -> Path:
    path = ceremony.home / "case.json"
    ceremony.call("evidence", "export", sealed_file(ceremony), "-o", path, "--trust", ceremony.trust, *arguments)
    return path


def test_sender_and_content_are_proven_without_anything_else(ceremony: Ceremony) -> None:
    path = exported(ceremony, "--with-content", "--keys", ceremony.keys, "--as", "alice", "--passphrase-file", "words")
    away = ceremony.home / "away"
    away.mkdir()
    path.rename(away / "case.json")

    shown = ceremony.json("evidence", "verify", away / "case.json")
    said = ceremony.call("evidence", "verify", away / "case.json", "--roots", ceremony.home / "trust.roots")

    assert (shown["sender"], shown["sound"], shown["key_state"]) == ("web", True, "active")
    assert shown["content"]["payload"] == {"total_cents": 4200}
    assert "web sent command shop.place_order/1 to shop" in said
    assert '"total_cents": 4200' in said
    assert "compare the fingerprint" not in said


def test_without_the_key_nobody_can_read_it(ceremony: Ceremony) -> None:
    path = exported(ceremony)

    said = ceremony.call("evidence", "verify", path)

    assert "no key of this message is in the evidence" in said
    assert "compare the fingerprint" in said
    assert "4200" not in said + path.read_text()


def test_the_bundle_of_the_day_is_found_among_all(ceremony: Ceremony) -> None:
    message = sealed_file(ceremony)
    ceremony.change("revoke", ceremony.content["services"]["web"]["sign"][0]["kid"], "--reason", "compromise")
    ceremony.sign()
    one = ceremony.home / "one.json"

    ceremony.call(
        *("evidence", "export", message, "-o", one, "--trust", ceremony.trust / "bundles" / "00000002.bundle")
    )

    shown = ceremony.json("evidence", "verify", one, code=1)
    assert (shown["sound"], shown["key_state"]) == (False, "compromised")
    assert "BUT the key was known as compromised" in ceremony.call("evidence", "verify", one, code=1)


def test_other_roots_prove_nothing_here(ceremony: Ceremony) -> None:
    path = exported(ceremony)
    write_pins(pins_of("prod-eu", ["58" + "66" * 31]), ceremony.home / "other.roots")

    assert "proves nothing here" in ceremony.call("evidence", "verify", path, "--roots", "other.roots", code=2)


def test_an_altered_file_is_refused(ceremony: Ceremony) -> None:
    path = exported(ceremony)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "sealed": content["bundle"]}))

    ceremony.call("evidence", "verify", path, code=4)


def test_a_folder_without_bundles_says_what_to_name(ceremony: Ceremony) -> None:
    empty = ceremony.home / "empty"
    empty.mkdir()

    said = ceremony.call(
        *("evidence", "export", sealed_file(ceremony), "--trust", empty),
        *("--roots", ceremony.home / "trust.roots"),
        code=2,
    )

    assert "name the bundle of that day" in said


@pytest.mark.broker
def test_a_dead_letter_by_its_id(running: Installation) -> None:
    clear(running)
    (found,) = bury(running, "evidence")

    result = running.call("evidence", "export", found, "--with-content")

    assert result.exit_code == 0, result.stderr
    assert "ops:dev sent command shop.place_order/1 to shop" in result.stderr
