"""Signing a draft, checking what is signed, and saying what changes."""

import shutil
from pathlib import Path

import pytest

from tests.support.ceremony import Ceremony
from tests.support.installation import Installation


@pytest.fixture
def two(offline: Installation, kept_ceremonies: Path) -> Ceremony:
    return Ceremony(offline, kept_ceremonies, threshold=2)


def test_one_holder_after_the_other(two: Ceremony) -> None:
    two.change("allow", "web", "command", "shop.forget")

    first = two.sign(count=1)
    half = two.call("trust", "verify", two.trust / "trust.draft", code=1)
    changed = two.change("renew", code=2)
    second = two.sign()

    assert "has 1 of 2 signatures; the next holder signs it now" in first
    assert "signed by 1 of 2 root keys, 2 are needed" in half
    assert "which a change would undo" in changed
    assert "Trust bundle version 2 is in force" in second
    assert "valid for 7 d" in two.call("trust", "verify", "--trust", two.trust)


def test_what_is_signed_is_shown_and_asked_about(ceremony: Ceremony) -> None:
    ceremony.change("allow", "web", "command", "shop.forget")

    said = ceremony.call(
        *("trust", "sign", "--root", ceremony.home / "0.root", "--trust", ceremony.trust), said="n\n", code=1
    )

    assert "web may now send command shop.forget to shop" in said
    assert "Nothing was signed." in said
    assert ceremony.folder.has_draft


def test_a_wrong_passphrase_signs_nothing(ceremony: Ceremony) -> None:
    ceremony.change("renew")
    (ceremony.home / "wrong").write_text("wrong\n")

    said = ceremony.change(
        *("sign", "--root", ceremony.home / "0.root", "--passphrase-file", ceremony.home / "wrong", "--yes"), code=2
    )

    assert "the passphrase is wrong" in said
    assert ceremony.content["version"] == 1


def test_a_bundle_is_checked_against_the_roots_beside_it_or_named(ceremony: Ceremony) -> None:
    shutil.copy(ceremony.trust / "trust.bundle", ceremony.keys / "trust.bundle")
    away = ceremony.home / "away"
    away.mkdir()
    shutil.copy(ceremony.trust / "trust.bundle", away / "trust.bundle")

    beside = ceremony.json("trust", "verify", ceremony.keys / "trust.bundle")
    named = ceremony.json("trust", "verify", away / "trust.bundle", "--roots", ceremony.home / "trust.roots")
    lost = ceremony.call("trust", "verify", away / "trust.bundle", code=2)

    assert beside == named
    assert (beside["good"], beside["signed"], beside["version"]) == (True, 1, 1)
    assert "say --roots FILE" in lost


def test_differences_in_words(ceremony: Ceremony) -> None:
    old, new = ceremony.trust / "trust.bundle", ceremony.trust / "trust.draft"
    ceremony.change("allow", "web", "subscribe", "shop.order_placed")

    assert "web may now read event shop.order_placed" in ceremony.call("trust", "diff", old, new)
    assert "web may now read event shop.order_placed" in ceremony.json("trust", "diff", old, new)
    assert ceremony.call("trust", "diff", old, old) == "Nothing changes.\n"
