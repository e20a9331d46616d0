"""Secrets in files: sealed with their clear fields, opened only as they were written."""

import json
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security.passphrase import seal_secret, unseal_secret
from messaging.security.strict_json import load_json

CHEAP = 1 << 10
CLEAR = {"v": 1, "realm": "test"}


def content(passphrase: bytes | None, **changes: object) -> bytes:
    raw: dict[str, Any] = json.loads(seal_secret(b"secret", CLEAR, passphrase=passphrase, cost=CHEAP))
    return json.dumps({**raw, **changes}).encode()


def opened(raw: bytes, passphrase: bytes | None = None) -> tuple[bytes, bool]:
    fields = load_json(raw, "the file")
    clear = {"v": fields.integer("v"), "realm": fields.text("realm")}
    return unseal_secret(fields, clear, passphrase=passphrase)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_secret_comes_back_and_says_whether_it_was_sealed(passphrase: bytes | None) -> None:
    assert opened(content(passphrase), passphrase) == (b"secret", passphrase is not None)


def test_the_same_secret_is_never_sealed_alike() -> None:
    assert content(b"correct horse") != content(b"correct horse")


def test_the_fields_in_clear_cannot_be_exchanged() -> None:
    with pytest.raises(ConfigurationError, match="passphrase is wrong, or the file has been altered"):
        opened(content(b"correct horse", realm="other"), b"correct horse")


@pytest.mark.parametrize(
    ("passphrase", "given", "changes", "words"),
    [
        (b"correct horse", None, {}, "MESSAGING_PASSPHRASE_FILE"),
        (b"correct horse", b"wrong", {}, "the passphrase is wrong"),
        (None, None, {"nonce": 7}, "a nonce without a kdf"),
        (None, None, {"ct": "!"}, "not valid base64"),
        (b"x", b"x", {"kdf": {"name": "argon", "n": 1024, "r": 8, "p": 1, "salt": "00" * 16}}, "only scrypt"),
        (b"x", b"x", {"kdf": {"name": "scrypt", "n": 1025, "r": 8, "p": 1, "salt": "00" * 16}}, "power of two"),
        (b"x", b"x", {"kdf": {"name": "scrypt", "n": 1 << 21, "r": 8, "p": 1, "salt": "00" * 16}}, "must be between"),
    ],
)
def test_what_does_not_open_says_why(
    passphrase: bytes | None, given: bytes | None, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        opened(content(passphrase, **changes), given)
