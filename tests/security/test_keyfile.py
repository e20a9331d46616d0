import base64
import json
from pathlib import Path
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.keyfile import decode_keyring, encode_keyring, keyring_file, load_keyring, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey

ROOT = SigningKey.generate("test")
CHEAP = 1 << 10


def keyring(service: str = "orders", realm: str = "test") -> Keyring:
    made = Keyring.generate(service, realm=realm, roots=(ROOT.public,))
    return made.with_group(OPS_GROUP, (DecryptionKey.generate(realm),))


def content_of(made: Keyring, passphrase: bytes | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_keyring(made, passphrase=passphrase, cost=CHEAP))
    return found


def decoded(content: dict[str, Any], passphrase: bytes | None = None) -> Keyring:
    return decode_keyring(json.dumps(content).encode(), passphrase=passphrase)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_keyring_comes_back_from_its_file(tmp_path: Path, passphrase: bytes | None) -> None:
    made = keyring()
    path = tmp_path / keyring_file("orders")

    write_keyring(made, path, passphrase=passphrase, cost=CHEAP)
    found = load_keyring(path, passphrase=passphrase)

    assert (found.service, found.realm, found.threshold) == ("orders", "test", 1)
    assert [key.secret() for key in found.signing] == [key.secret() for key in made.signing]
    assert found.decryption.keys() == made.decryption.keys()
    assert found.groups[OPS_GROUP].keys() == made.groups[OPS_GROUP].keys()
    assert [root.raw for root in found.roots] == [ROOT.public.raw]


def test_keys_of_both_suites_come_back_from_one_file(tmp_path: Path) -> None:
    made = Keyring.generate("orders", realm="test", roots=(ROOT.public,), suites=(1, 2))
    made = made.with_group(OPS_GROUP, [DecryptionKey.generate("test", suite) for suite in (2, 1)])

    write_keyring(made, tmp_path / "orders.key")
    found = load_keyring(tmp_path / "orders.key")

    assert [key.suite for key in found.decryption.values()] == [1, 2]
    assert [key.secret() for key in found.decryption.values()] == [key.secret() for key in made.decryption.values()]
    assert found.groups[OPS_GROUP].keys() == made.groups[OPS_GROUP].keys()


@pytest.mark.parametrize("size", [31, 64, 95, 97])
def test_a_secret_of_no_suite_is_refused(size: int) -> None:
    content = content_of(keyring())
    secret = json.loads(base64.b64decode(content["ct"]))
    secret["decryption"].append("00" * size)
    content["ct"] = base64.b64encode(json.dumps(secret).encode()).decode()

    with pytest.raises(ConfigurationError, match="expected 32 or 96 bytes"):
        decoded(content)


def test_files_are_named_by_identity() -> None:
    assert keyring_file("orders") == "orders.key"
    assert keyring_file("ops:alice") == "ops.alice.key"


def test_a_passphrase_hides_the_keys() -> None:
    made = keyring()
    secret = made.signing[0].secret().hex()

    content = content_of(made, b"correct horse")

    assert secret.encode() not in base64.b64decode(content["ct"])
    assert secret.encode() in base64.b64decode(content_of(made)["ct"])


def test_a_file_is_not_replaced_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "orders.key"
    write_keyring(keyring(), path)

    with pytest.raises(ConfigurationError, match="exists already"):
        write_keyring(keyring(), path)
    write_keyring(keyring(), path, replace=True)

    assert load_keyring(path).service == "orders"


def test_a_wrong_passphrase_says_so() -> None:
    with pytest.raises(ConfigurationError, match="the passphrase is wrong"):
        decoded(content_of(keyring(), b"correct horse"), b"wrong horse")


def test_a_missing_passphrase_says_so() -> None:
    with pytest.raises(ConfigurationError, match="sealed with a passphrase"):
        decoded(content_of(keyring(), b"correct horse"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("realm", "prod"),
        ("service", "users"),
        ("threshold", 2),
        ("roots", [SigningKey.generate("test").public.raw.hex()]),
    ],
)
def test_the_fields_in_clear_cannot_be_exchanged(field: str, value: object) -> None:
    content = content_of(keyring(), b"correct horse") | {field: value}

    with pytest.raises(ConfigurationError, match="has been altered"):
        decoded(content, b"correct horse")


def test_a_person_needs_a_passphrase() -> None:
    alice = keyring("ops:alice")

    with pytest.raises(ConfigurationError, match="needs a passphrase"):
        encode_keyring(alice, passphrase=None)
    assert decoded(content_of(alice, b"correct horse"), b"correct horse").is_operator


def test_a_persons_file_without_a_passphrase_is_refused() -> None:
    content = content_of(keyring()) | {"service": "ops:alice"}

    with pytest.raises(ConfigurationError, match="needs a passphrase"):
        decoded(content)


def test_development_needs_none() -> None:
    assert decoded(content_of(keyring("ops:alice", realm="dev-1"))).is_operator


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"roots": ["00"]},
        {"roots": [1]},
        {"threshold": 0},
        {"nonce": 5},
        {"nonce": "00"},
        {"ct": "?"},
        {"ct": ""},
        {"ct": 5},
        {"note": "x"},
        {"kdf": 1},
    ],
)
def test_a_damaged_file_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        decoded(content_of(keyring()) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "argon2"},
        {"n": 1000},
        {"n": CHEAP + 1},
        {"n": 1 << 21},
        {"n": 2},
        {"r": 16},
        {"p": 2},
        {"salt": "00"},
        {"more": 1},
    ],
)
def test_a_cost_beyond_reason_is_not_paid(changes: dict[str, object]) -> None:
    content = content_of(keyring(), b"correct horse")
    content["kdf"] |= changes

    with pytest.raises(ConfigurationError, match="kdf"):
        decoded(content, b"correct horse")


def test_every_cut_is_refused() -> None:
    raw = encode_keyring(keyring(), passphrase=None).rstrip()

    for end in range(0, len(raw), 11):
        with pytest.raises(ConfigurationError):
            decode_keyring(raw[:end], passphrase=None)


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"signing": [], "decryption": [], "groups": {}},
        {"signing": ["00"], "decryption": [], "groups": {}},
        {"x": 1},
    ],
)
def test_a_secret_part_out_of_form_is_refused(secret: dict[str, object]) -> None:
    content = content_of(keyring()) | {"ct": base64.b64encode(json.dumps(secret).encode()).decode()}

    with pytest.raises(ConfigurationError):
        decoded(content)
