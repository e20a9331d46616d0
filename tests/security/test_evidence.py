"""Looking at sealed bytes, opening one message, and proofs for people who hold nothing of ours."""

import base64
import json
from typing import Any

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.errors import (
    AudienceError,
    ConfigurationError,
    DecryptionError,
    MalformedError,
    SealError,
    SignatureError,
    UnknownKeyError,
)
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.evidence import (
    Evidence,
    Judgement,
    bundle_of_time,
    judge,
    look_at,
    message_key,
    open_with,
    pack_evidence,
    parse_evidence,
    prove,
)
from messaging.security.roots import Pins
from tests.support.realm import DAY_MS, Realm, resign


@pytest.fixture
def realm() -> Realm:
    return Realm()


def pins(realm: Realm) -> Pins:
    return Pins(realm="test", roots=(realm.root.public,), threshold=1)


def bundle(realm: Realm, raw: bytes) -> TrustBundle:
    return verify_bundle(raw, roots=(realm.root.public,), threshold=1, realm="test")


def evidence(realm: Realm, *, sealed: bytes | None = None, raw: bytes | None = None, with_key: bool = True) -> Evidence:
    sealed = realm.sealed() if sealed is None else sealed
    key = message_key(look_at(sealed), realm.keyrings["orders"]) if with_key else None
    return Evidence(sealed=sealed, bundle=realm.publish() if raw is None else raw, pins=pins(realm), message_key=key)


def judged(realm: Realm, **options: Any) -> Judgement:
    return judge(parse_evidence(pack_evidence(evidence(realm, **options))))


class TestLooking:
    @pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.REQUEST])
    def test_who_sent_what_when_without_a_key(self, realm: Realm, kind: Kind) -> None:
        name = "orders.place_order" if kind is Kind.COMMAND else "orders.get_order"

        seen = look_at(realm.sealed(kind=kind, name=name))

        assert (seen.header.address.sender, seen.header.address.aud, seen.header.name) == ("users", "orders", name)
        assert seen.namespace == "messaging"
        assert {row.rid for row in seen.block.rows} >= {"orders"}

    def test_faults_and_replays_too(self, realm: Realm) -> None:
        original = realm.sealed()

        assert look_at(realm.fault(original)).header.address.kind is Kind.FAULT
        assert look_at(realm.replay(original)).header.address.kind is Kind.REPLAY

    def test_whether_it_is_true(self, realm: Realm) -> None:
        seen = look_at(realm.sealed())

        assert prove(seen, realm.stores["users"].current) is KeyState.ACTIVE

    def test_a_forgery_and_an_unknown_key_are_told(self, realm: Realm) -> None:
        body = realm.sealed()
        forged = look_at(resign(body, realm.signer("billing")))
        foreign = look_at(Realm().sealed())

        with pytest.raises(SignatureError, match="altered or forged"):
            prove(forged, realm.stores["users"].current)
        with pytest.raises(UnknownKeyError, match="of the day on which"):
            prove(foreign, realm.stores["users"].current)

    @pytest.mark.parametrize("header", [b"", b"\x80", msgpack.packb([0] * 17), msgpack.packb([""] * 17)])
    def test_what_is_no_message_is_refused(self, realm: Realm, header: bytes) -> None:
        body = realm.sealed()

        with pytest.raises(MalformedError):
            look_at(resign(body, realm.signer("users"), header=header))


class TestOneMessage:
    def test_its_key_opens_it_and_no_other(self, realm: Realm) -> None:
        seen, other = look_at(realm.sealed()), look_at(realm.sealed())

        key = message_key(seen, realm.keyrings["orders"])

        assert open_with(seen, key).payload == b"\x81\xa1n\x01"
        with pytest.raises(DecryptionError, match="not that of this message"):
            open_with(other, key)

    def test_operators_find_it_through_their_group(self, realm: Realm) -> None:
        seen = look_at(realm.sealed())

        assert message_key(seen, realm.keyrings["ops:alice"]) == message_key(seen, realm.keyrings["orders"])

    def test_who_is_no_reader_is_told_who_is(self, realm: Realm) -> None:
        with pytest.raises(AudienceError, match="those of group:ops, orders open it"):
            message_key(look_at(realm.sealed()), realm.keyrings["billing"])


class TestEvidence:
    def test_it_proves_sender_and_content(self, realm: Realm) -> None:
        found = judged(realm)

        assert found.sighting.header.address.sender == "users"
        assert (found.key_state, found.is_of_its_time) == (KeyState.ACTIVE, True)
        assert found.content is not None
        assert found.content.payload == b"\x81\xa1n\x01"

    def test_without_the_key_it_proves_the_sender_alone(self, realm: Realm) -> None:
        assert judged(realm, with_key=False).content is None

    def test_it_still_proves_after_the_key_was_revoked_if_the_bundle_is_of_that_day(self, realm: Realm) -> None:
        sealed, of_that_day = realm.sealed(), realm.publish()
        realm.clock.advance(60)
        later = realm.publish(realm.revoke("users", "compromise"))

        assert judged(realm, sealed=sealed, raw=of_that_day).key_state is KeyState.ACTIVE
        assert judged(realm, sealed=sealed, raw=later).key_state is KeyState.COMPROMISED

    def test_a_bundle_of_another_time_is_told(self, realm: Realm) -> None:
        sealed = realm.sealed()
        later = realm.publish(lambda payload: payload.update(issued=payload["issued"] + DAY_MS))

        assert not judged(realm, sealed=sealed, raw=later).is_of_its_time

    def test_nothing_of_it_can_be_exchanged(self, realm: Realm) -> None:
        content = json.loads(pack_evidence(evidence(realm)))
        other = json.loads(pack_evidence(evidence(realm)))

        with pytest.raises(ConfigurationError, match="signed by 0 of the root keys"):
            judge(parse_evidence(json.dumps({**content, "roots": [Realm().root.public.raw.hex()]}).encode()))
        with pytest.raises(DecryptionError):
            judge(parse_evidence(json.dumps({**content, "message_key": other["message_key"]}).encode()))
        sealed = bytearray(base64.b64decode(content["sealed"]))
        sealed[-70] ^= 1
        altered = base64.b64encode(bytes(sealed)).decode()
        with pytest.raises(SealError):
            judge(parse_evidence(json.dumps({**content, "sealed": altered}).encode()))

    @pytest.mark.parametrize(
        ("changes", "words"),
        [({"sealed": "!"}, "not valid base64"), ({"more": 1}, "unknown field"), ({"message_key": "ab"}, "32 bytes")],
    )
    def test_a_damaged_file_is_refused(self, realm: Realm, changes: dict[str, object], words: str) -> None:
        content = json.loads(pack_evidence(evidence(realm)))

        with pytest.raises(ConfigurationError, match=words):
            parse_evidence(json.dumps({**content, **changes}).encode())

    def test_what_is_too_large_is_not_read(self) -> None:
        with pytest.raises(ConfigurationError, match="is no evidence"):
            parse_evidence(bytes(64 * 1024 * 1024 + 1))


def test_the_bundle_of_the_day_is_the_last_one_issued_by_then(realm: Realm) -> None:
    def issued(at_ms: int) -> bytes:
        return realm.publish(lambda payload: payload.update(issued=at_ms))

    raws = [issued(1_000_000), issued(2_000_000)]
    pairs = [(bundle(realm, raw), raw) for raw in reversed(raws)]

    assert bundle_of_time(pairs, 1_500_000) == raws[0]
    assert bundle_of_time(pairs, 9_000_000) == raws[1]
    assert bundle_of_time(pairs, 5) == raws[0]
    with pytest.raises(ConfigurationError, match="no trust bundle to prove anything with"):
        bundle_of_time([], 5)
