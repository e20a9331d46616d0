from uuid import UUID, uuid4

import pytest

from messaging.core.envelope import CODEC_JSON, Kind
from messaging.security.bundle import KeyState
from messaging.security.verified import Verified, VerifiedDead
from tests.support.realm import EVERY_KIND, Realm


@pytest.fixture
def realm() -> Realm:
    return Realm()


def verified(realm: Realm, body: bytes, name: str = "orders") -> Verified:
    return realm.opener(name).verify(body, kinds=EVERY_KIND)


def test_it_tells_what_the_header_says(realm: Realm) -> None:
    message_id, cause = uuid4(), uuid4()
    body = realm.sealed(
        id=message_id,
        kind=Kind.REQUEST,
        name="orders.get_order",
        version=3,
        causation_id=cause,
        traceparent="00-a-b-01",
        issued_at_ms=realm.clock.now_ms,
        expires_at_ms=realm.clock.now_ms + 5000,
    )

    found = verified(realm, body)

    assert found.body is body
    assert (found.id, found.kind, found.name, found.version) == (message_id, Kind.REQUEST, "orders.get_order", 3)
    assert (found.type, found.sender, found.audience) == ("orders.get_order/3", "users", "orders")
    assert (found.exchange, found.routing_key) == ("messaging.requests", "orders.get_order.v3")
    assert (found.issued_at_ms, found.expires_at_ms) == (realm.clock.now_ms, realm.clock.now_ms + 5000)
    assert (found.correlation_id, found.causation_id, found.traceparent) == (UUID(int=7), cause, "00-a-b-01")
    assert found.reply_to == "messaging.users.replies.00112233445566ff"
    assert (found.bind, found.bundle_version, found.key_state) == (None, 2, KeyState.ACTIVE)
    assert found.ext["bv"] == 2


def test_what_is_absent_is_none(realm: Realm) -> None:
    found = verified(realm, realm.sealed(correlation_id=None))

    assert (found.correlation_id, found.causation_id, found.traceparent, found.reply_to) == (None, None, None, None)


def test_its_envelope_has_what_it_is_given(realm: Realm) -> None:
    found = verified(realm, realm.sealed())

    bare, full = found.envelope(), found.envelope(payload=b"x", codec=CODEC_JSON, headers={"k": "v"})

    assert (bare.payload, bare.headers) == (b"", {})
    assert (full.payload, full.codec, full.headers) == (b"x", CODEC_JSON, {"k": "v"})
    assert full.id == found.id


def test_it_shows_neither_bytes_nor_keys(realm: Realm) -> None:
    found = verified(realm, realm.sealed())

    assert repr(found) == f"Verified(command 'orders.place_order/1' {found.id} from 'users')"


@pytest.mark.parametrize(("reason", "replayable"), [("retired", True), ("compromise", False)])
def test_what_a_compromised_key_signed_is_not_replayable(realm: Realm, reason: str, replayable: bool) -> None:
    body = realm.sealed()
    realm.publish(realm.revoke("users", reason))

    found = VerifiedDead(letter=realm.opener("ops:alice").verify_archived(body), is_raw=True)

    assert found.is_replayable is replayable
