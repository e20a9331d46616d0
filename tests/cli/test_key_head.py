"""The clear part of key files."""

import json
from pathlib import Path

import pytest

from messaging.cli.key_head import key_files_in, read_head
from messaging.errors import ConfigurationError
from messaging.security.keyfile import write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import SigningKey


def keyring(service: str) -> Keyring:
    return Keyring.generate(service, realm="shop-1", roots=[SigningKey.generate("shop-1").public])


def test_it_tells_whose_file_it_is_without_a_passphrase(tmp_path: Path) -> None:
    made = keyring("ops:alice")
    write_keyring(made, tmp_path / "ops.alice.key", passphrase=b"words", cost=1 << 10)

    head = read_head(tmp_path / "ops.alice.key")

    assert (head.service, head.realm, head.threshold, head.is_sealed) == ("ops:alice", "shop-1", 1, True)
    assert head.roots == (made.roots[0].raw.hex(),)


def test_a_file_without_a_passphrase_says_so(tmp_path: Path) -> None:
    write_keyring(keyring("orders"), tmp_path / "orders.key")

    assert not read_head(tmp_path / "orders.key").is_sealed


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[" * 100_000, json.dumps({"service": "x", "threshold": "y"})]
)
def test_what_is_no_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match=r"odd\.key is no key file"):
        read_head(path)


def test_key_files_are_those_with_the_ending(tmp_path: Path) -> None:
    for name in ("b.key", "a.key", "trust.bundle", "trust.root"):
        (tmp_path / name).touch()

    assert [path.name for path in key_files_in(tmp_path)] == ["a.key", "b.key"]
