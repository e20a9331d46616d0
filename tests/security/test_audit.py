"""Signed records of what operators did: what is proven, and by whom."""

import json
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security import audit
from messaging.security.audit import AuditRecord, Proof, pack_record, read_record
from messaging.security.bundle import TrustBundle
from messaging.security.development import DevelopmentTrust
from messaging.security.keyring import Keyring
from tests.support.ambient import REAL
from tests.support.stage import change_bundle

ACT = {"act": "replayed", "letters": [{"id": "a1"}], "count": 3, "is_forced": False, "stopped": None}


def realm() -> tuple[DevelopmentTrust, Keyring]:
    trust = DevelopmentTrust(ambient=REAL)
    keyring, _ = trust.operator("alice")
    trust.operator("bob")
    return trust, keyring


def bundle_of(trust: DevelopmentTrust) -> TrustBundle:
    return trust.operator("alice")[1].current


def packed(keyring: Keyring, *, by: str | None = None, realm: str | None = None) -> bytes:
    return pack_record(ACT, by=by or keyring.service, realm=realm or keyring.realm, signer=keyring.signing[0])


def test_a_record_proves_who_did_what() -> None:
    trust, keyring = realm()

    assert read_record(packed(keyring), bundle_of(trust)) == AuditRecord(proof=Proof.SIGNED, by="ops:alice", fields=ACT)


def test_every_bit_of_it_is_covered() -> None:
    trust, keyring = realm()
    raw = packed(keyring)

    for place in range(0, len(raw), 7):
        bent = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert read_record(bent, bundle_of(trust)).proof is not Proof.SIGNED


def test_nobody_speaks_for_another() -> None:
    trust, keyring = realm()

    assert read_record(packed(keyring, by="ops:bob"), bundle_of(trust)).proof is Proof.UNKNOWN_KEY


def test_words_under_a_known_key_that_it_did_not_sign_are_forged() -> None:
    trust, keyring = realm()
    raw = packed(keyring)
    content = json.loads(raw[64:])
    content["fields"]["count"] = 4

    assert read_record(raw[:64] + json.dumps(content).encode(), bundle_of(trust)).proof is Proof.FORGED


def test_what_a_compromised_key_signed_proves_nothing() -> None:
    trust, keyring = realm()
    kid = keyring.signing[0].kid

    def compromise(payload: dict[str, Any]) -> None:
        payload["revoked"] = [{"kid": kid.hex(), "at": 1, "reason": "compromise"}]

    raw = packed(keyring)
    change_bundle(trust, compromise, only=["ops:bob"])

    assert read_record(raw, trust._stores["ops:bob"].current).proof is Proof.COMPROMISED
    assert kid.hex() in raw.decode(errors="replace")


@pytest.mark.parametrize(
    "raw",
    [b"", b"x" * 64, b"x" * 64 + b"{}", b"x" * 64 + b'{"v": 2}', b"x" * (64 + audit.RECORD_MAX_BYTES + 1)],
    ids=["empty", "short", "bare", "version", "long"],
)
def test_what_is_no_record_is_junk(raw: bytes) -> None:
    trust, _ = realm()

    assert read_record(raw, bundle_of(trust)) == AuditRecord(proof=Proof.JUNK, fields={})


@pytest.mark.parametrize("change", [{"realm": "other"}, {"by": "Not A Name"}])
def test_a_record_of_another_realm_or_of_nobody_is_junk(change: dict[str, str]) -> None:
    trust, keyring = realm()

    assert read_record(packed(keyring, **change), bundle_of(trust)).proof is Proof.JUNK


def test_a_record_beyond_all_measure_is_not_made() -> None:
    _, keyring = realm()

    with pytest.raises(ConfigurationError, match="audit record"):
        pack_record(
            {"reason": "x" * audit.RECORD_MAX_BYTES}, by="ops:alice", realm=keyring.realm, signer=keyring.signing[0]
        )
