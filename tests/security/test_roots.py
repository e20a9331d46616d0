"""Root keys and the file that pins them."""

import json
from pathlib import Path
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security.keys import SigningKey
from messaging.security.roots import (
    Pins,
    load_pins,
    load_root,
    pins_of,
    public_root,
    roots_fingerprint,
    write_pins,
    write_root,
)

CHEAP = 1 << 10
ROOT, OTHER = SigningKey.generate("test"), SigningKey.generate("test")


def pins(threshold: int = 1) -> Pins:
    return pins_of("test", [ROOT.public.raw.hex(), OTHER.public.raw.hex()], threshold=threshold)


def test_pins_come_back_from_their_file(tmp_path: Path) -> None:
    write_pins(pins(2), tmp_path / "trust.roots")

    found = load_pins(tmp_path / "trust.roots")

    assert (found.realm, found.threshold) == ("test", 2)
    assert [root.kid for root in found.roots] == [ROOT.kid, OTHER.kid]
    with pytest.raises(ConfigurationError, match="exists already"):
        write_pins(pins(), tmp_path / "trust.roots")


def test_a_fingerprint_is_of_roots_threshold_and_realm() -> None:
    swapped = pins_of("test", [OTHER.public.raw.hex(), ROOT.public.raw.hex()])

    assert roots_fingerprint(pins()) == roots_fingerprint(swapped)
    assert roots_fingerprint(pins()) != roots_fingerprint(pins(2))
    assert roots_fingerprint(pins()) != roots_fingerprint(pins_of("prod", [ROOT.public.raw.hex()]))


@pytest.mark.parametrize(
    ("roots", "threshold", "words"),
    [
        ([ROOT.public.raw.hex()] * 2, 1, "named twice"),
        ([ROOT.public.raw.hex()], 2, "2 of 1 root keys cannot sign"),
        ([], 1, "1 of 0 root keys"),
        (["zz"], 1, "is no public root key"),
        (["AB" * 32], 1, "is no public root key"),
        (["00" * 32], 1, "small order"),
    ],
)
def test_what_cannot_be_pinned(roots: list[str], threshold: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        pins_of("test", roots, threshold=threshold)


def test_a_missing_roots_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="messaging trust root pin"):
        load_pins(tmp_path / "trust.roots")


def test_a_root_key_comes_back_by_its_passphrase_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.root"
    write_root(ROOT, path, realm="test", passphrase=b"correct horse", cost=CHEAP)

    found, realm = load_root(path, passphrase=b"correct horse")

    assert (found.secret(), realm) == (ROOT.secret(), "test")
    assert public_root(path) == ROOT.public.raw
    with pytest.raises(ConfigurationError, match="passphrase is wrong"):
        load_root(path, passphrase=b"wrong")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_root(ROOT, path, realm="test", passphrase=b"x", cost=CHEAP)


def test_a_root_key_is_never_written_without_a_passphrase(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a passphrase"):
        write_root(ROOT, tmp_path / "r.root", realm="test", passphrase=b"")

    assert list(tmp_path.iterdir()) == []


def test_a_root_key_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.root"
    write_root(ROOT, path, realm="test", passphrase=b"x", cost=CHEAP)
    content: dict[str, Any] = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "root": OTHER.public.raw.hex()}))
    with pytest.raises(ConfigurationError, match="has been altered"):
        load_root(path, passphrase=b"x")

    path.write_text(json.dumps({**content, "kdf": None, "nonce": None}))
    with pytest.raises(ConfigurationError, match="not sealed with a passphrase"):
        load_root(path, passphrase=b"x")
