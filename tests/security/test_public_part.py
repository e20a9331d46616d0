"""Public parts: what leaves a key file, and what is believed of it elsewhere."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.public_part import export_part, fingerprint, import_part, part_of

ROOT = SigningKey.generate("test")


def keyring(identity: str = "ops:alice") -> Keyring:
    made = Keyring.generate(identity, realm="test", roots=(ROOT.public,))
    return made.with_group(OPS_GROUP, (DecryptionKey.generate("test"),))


def altered(raw: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(raw)
    change(content)
    return json.dumps(content).encode()


def test_keys_of_both_suites_come_back_from_one_part() -> None:
    made = Keyring.generate("orders", realm="test", roots=(ROOT.public,), suites=(1, 2))

    raw = export_part(made)

    assert [entry["alg"] for entry in json.loads(raw)["enc"]] == [2, 3]
    assert [key.kid for key in import_part(raw, realm="test").encryption] == list(made.decryption)


@pytest.mark.parametrize(("at", "algorithm"), [(0, 3), (1, 2), (1, 1), (1, 4)])
def test_a_key_under_another_algorithm_is_refused(at: int, algorithm: int) -> None:
    raw = export_part(Keyring.generate("orders", realm="test", roots=(ROOT.public,), suites=(1, 2)))

    with pytest.raises(ConfigurationError):
        import_part(altered(raw, lambda content: content["enc"][at].update(alg=algorithm)), realm="test")


def test_a_part_comes_back_from_its_file() -> None:
    made = keyring()

    found = import_part(export_part(made), realm="test")

    assert (found.identity, found.realm) == ("ops:alice", "test")
    assert [key.kid for key in found.signing] == [key.kid for key in made.signing]
    assert [key.kid for key in found.encryption] == list(made.decryption)
    assert [key.kid for key in found.groups[OPS_GROUP]] == list(made.groups[OPS_GROUP])
    assert fingerprint(found) == fingerprint(part_of(made))


def test_no_private_key_is_in_it() -> None:
    made = keyring()

    raw = export_part(made)

    decryption = (*made.decryption.values(), *made.groups[OPS_GROUP].values())
    secrets = [made.signing[0].secret(), *(key.secret() for key in decryption)]
    assert not any(secret.hex().encode() in raw for secret in secrets)


def test_fingerprints_differ_with_the_keys() -> None:
    assert fingerprint(part_of(keyring())) != fingerprint(part_of(keyring()))
    assert len(fingerprint(part_of(keyring())).split()) == 8


def test_another_s_key_cannot_be_offered_as_one_s_own() -> None:
    victim = json.loads(export_part(keyring("orders")))

    stolen = altered(export_part(keyring("mallory")), lambda content: content.update(sign=victim["sign"]))

    with pytest.raises(ConfigurationError, match="not signed by the keys that it names"):
        import_part(stolen, realm="test")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(identity="other"), "not signed by the keys"),
        (lambda content: content.update(identity="Other"), "names no service"),
        (lambda content: content.update(realm="prod"), "it is for realm 'prod'"),
        (lambda content: content.update(sign=[], proofs=[]), "needs a signing and an encryption key"),
        (lambda content: content.update(enc=[]), "needs a signing and an encryption key"),
        (lambda content: content.update(proofs=[]), "not signed by the keys"),
        (lambda content: content.update(note="hi"), "unknown field 'note'"),
        (lambda content: content["sign"][0].update(alg=9), "must be between 1 and 1"),
        (lambda content: content["enc"][0].update(pub="00" * 32), "small order"),
    ],
)
def test_what_was_altered_is_refused(change: Callable[[dict[str, Any]], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        import_part(altered(export_part(keyring()), change), realm="test")


def test_what_is_too_large_to_be_one_is_not_read() -> None:
    with pytest.raises(ConfigurationError, match="is no public part"):
        import_part(b" " * (1 << 20) + b"{}", realm="test")
