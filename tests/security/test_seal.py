from typing import Any
from uuid import UUID, uuid4

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import routing_key
from messaging.errors import ConfigurationError, MessageTooLargeError, PolicyError
from messaging.security import seal
from messaging.security.bundle import OPS_GROUP
from messaging.security.development import identity_entry
from messaging.security.keyblock import parse_block
from messaging.security.keyring import Keyring
from messaging.security.outer import CONTENT_MAX, CONTENT_MAX_WRAPPING, leaf_of, split_parts
from messaging.security.rotation_steps import with_new_keys
from messaging.security.trust import TrustStore
from tests.support.realm import EVERY_KIND, NAMES, START_MS, Realm

ORDER = "orders.place_order.v1"
REPLAY = {"kind": Kind.REPLAY, "sender": "ops:alice", "audience": "orders", "bind": bytes(32)}


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.mark.parametrize(
    ("changes", "readers"),
    [
        ({}, (OPS_GROUP, "orders")),
        ({"kind": Kind.REQUEST, "name": "orders.get_order"}, ("orders",)),
        ({"kind": Kind.EVENT, "name": "orders.order_placed", "sender": "orders"}, ("billing", OPS_GROUP, "users")),
        ({"kind": Kind.EVENT, "name": "orders.unheard", "sender": "orders"}, ()),
        ({"kind": Kind.REPLY, "sender": "orders", "audience": "users"}, ("users",)),
        ({"kind": Kind.FAULT, "sender": "orders", "audience": "users"}, (OPS_GROUP, "orders", "users")),
        ({"kind": Kind.FAULT, "sender": "users", "audience": "users"}, (OPS_GROUP, "users")),
        ({"kind": Kind.REPLAY, "sender": "ops:alice", "audience": "orders"}, (OPS_GROUP, "orders")),
    ],
)
def test_each_kind_has_its_readers(realm: Realm, changes: dict[str, Any], readers: tuple[str, ...]) -> None:
    made = realm.envelope(**changes)

    assert realm.sealer(made.sender).recipients(made) == readers


def test_without_operators_nobody_else_reads_a_fault(realm: Realm) -> None:
    def edit(payload: dict[str, Any]) -> None:
        payload["groups"] = {}
        payload["policy"]["escrow"] = dict.fromkeys(("command", "event", "request", "reply"), False)

    realm.publish(edit)
    made = realm.envelope(kind=Kind.FAULT, sender="orders", audience="users")

    assert realm.sealer("orders").recipients(made) == ("orders", "users")


def test_the_sealed_message_is_wrapped_to_its_readers(realm: Realm) -> None:
    block = parse_block(split_parts(realm.sealed()).block)

    assert [row.rid for row in block.rows] == [OPS_GROUP, "orders"]


def test_nothing_of_the_payload_or_the_private_headers_is_in_clear(realm: Realm) -> None:
    body = realm.sealed(payload=b"the payload" * 3, headers={"tenant": "the tenant"})

    assert b"payload" not in body
    assert b"tenant" not in body


def test_the_header_says_what_the_envelope_says(realm: Realm) -> None:
    made = realm.envelope(
        kind=Kind.REQUEST,
        name="orders.get_order",
        correlation_id=uuid4(),
        causation_id=uuid4(),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        headers={"tenant": "t"},
    )
    body = realm.sealer("users").seal(made, routing_key="orders.get_order.v1")

    opener = realm.opener("orders")
    found = opener.decrypt(opener.verify(body, kinds=EVERY_KIND))

    assert found.bundle_version == 2
    assert found == seal_of(made, bundle_version=2)


def seal_of(made: Any, **changes: Any) -> Any:
    values = {name: getattr(made, name) for name in made.__dataclass_fields__}
    return type(made)(**(values | changes))


def test_a_bundle_version_of_the_envelope_is_kept(realm: Realm) -> None:
    body = realm.sealed(bundle_version=7)

    assert realm.opener("orders").verify(body, kinds=EVERY_KIND).bundle_version == 7


def test_the_leaf_is_known_before_the_signature(realm: Realm) -> None:
    sealer = realm.sealer("users")

    unsigned = sealer.prepare(realm.envelope(), routing_key=ORDER)
    sealed = sealer.sign([unsigned])[0]

    assert leaf_of(sealed) == unsigned.leaf
    assert 0 < len(sealed) - unsigned.size_bytes < 100


def test_one_signature_serves_a_batch(realm: Realm) -> None:
    sealer = realm.sealer("users")
    batch = [sealer.prepare(realm.envelope(), routing_key=ORDER) for _ in range(5)]

    sealed = sealer.sign(batch)

    parts = [split_parts(body) for body in sealed]
    assert len({part.signature for part in parts}) == 1
    assert [(part.size, part.index) for part in parts] == [(5, at) for at in range(5)]
    assert [part.leaf() for part in parts] == [unsigned.leaf for unsigned in batch]


@pytest.mark.parametrize("size", [0, 129])
def test_a_batch_has_bounds(realm: Realm, size: int) -> None:
    sealer = realm.sealer("users")
    one = sealer.prepare(realm.envelope(), routing_key=ORDER)

    with pytest.raises(ValueError, match="1 to 128"):
        sealer.sign([one] * size)


def test_a_batch_across_a_rotation_is_signed_by_both_keys(realm: Realm) -> None:
    fresh = realm.new_keyring("users")
    both = Keyring(
        service="users",
        realm="test",
        signing=(*realm.keyrings["users"].signing, *fresh.signing),
        decryption=realm.keyrings["users"].decryption,
        roots=realm.keyrings["users"].roots,
    )
    realm.keyrings["users"] = both
    sealer = realm.sealer("users")
    before = sealer.prepare(realm.envelope(), routing_key=ORDER)

    def rotate(payload: dict[str, Any]) -> None:
        payload["services"]["users"]["sign"][0]["state"] = "retiring"
        payload["services"]["users"]["sign"].extend(identity_entry(fresh)["sign"])

    realm.publish(rotate)
    after = sealer.prepare(realm.envelope(), routing_key=ORDER)
    sealed = sealer.sign([before, after, before])

    opener = realm.opener("orders")
    found = [opener.verify(body, kinds=EVERY_KIND).header.address.skid for body in sealed]
    assert found == [both.signing[0].kid, both.signing[1].kid, both.signing[0].kid]
    assert [leaf_of(body) for body in sealed] == [before.leaf, after.leaf, before.leaf]


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"sender": "billing"}, ORDER),
        ({"kind": Kind.REQUEST, "name": "orders.cancel"}, "orders.cancel.v1"),
        ({"kind": Kind.EVENT, "name": "orders.order_placed", "sender": "ops:alice", "version": 1}, None),
        ({**REPLAY, "sender": "users"}, "messaging.orders.commands"),
        ({**REPLAY, "audience": "billing", "name": "orders.order_placed"}, "messaging.billing.events"),
    ],
)
def test_what_policy_denies_is_refused_early_with_the_rule_that_would_allow_it(
    realm: Realm, changes: dict[str, Any], way: str | None
) -> None:
    def forbid(payload: dict[str, Any]) -> None:
        payload["policy"]["send"] = [rule for rule in payload["policy"]["send"] if rule["kind"] != "event"]

    realm.publish(forbid)
    made = realm.envelope(**changes)

    with pytest.raises(PolicyError, match=r"policy\.(send|replay)"):
        realm.sealer(made.sender).seal(made, routing_key=way or "orders.order_placed.v1")


def test_an_owner_publishes_its_events_without_a_rule(realm: Realm) -> None:
    body = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")

    assert realm.opener("billing").verify(body, kinds=EVERY_KIND).sender == "orders"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sender": "orders"}, "cannot seal a message of 'orders'"),
        ({"audience": "billing"}, "do not fit"),
        ({"name": "orders"}, "grammar"),
        ({"version": 0}, "grammar"),
        ({"name": "shop.buy"}, "no keys of 'shop'"),
        ({"expires_at_ms": 0}, "must expire"),
        ({"issued_at_ms": -5}, "must expire"),
        ({"expires_at_ms": 1_800_000_000_000 + 7 * 24 * 3_600_000 + 1}, "max_lifetime_s"),
        ({"bind": bytes(32)}, "bind"),
        ({"reply_to": "messaging.users.replies.00112233445566ff"}, "only a request"),
        ({"kind": Kind.REQUEST, "reply_to": "messaging.billing.replies.00112233445566ff"}, "reply queue of 'users'"),
        ({"kind": Kind.REQUEST, "reply_to": None}, "reply queue of 'users'"),
        ({"kind": Kind.REPLY, "bind": bytes(31)}, "bind"),
        ({"kind": Kind.REPLY, "bind": bytes(32), "correlation_id": None}, "correlation_id"),
        ({"kind": Kind.FAULT}, "bind"),
        ({"traceparent": "x" * 257}, "traceparent"),
        ({"codec": 9}, "codec"),
        ({"headers": {"k": object()}}, "plain values"),
    ],
)
def test_an_envelope_that_contradicts_itself_is_refused(realm: Realm, changes: dict[str, Any], problem: str) -> None:
    made = realm.envelope(**changes)

    with pytest.raises(ConfigurationError, match=problem):
        realm.sealer("users").seal(made, routing_key=routing_key(made.name, made.version))


def test_nobody_seals_in_the_name_of_another_even_after_a_message_of_its_own(realm: Realm) -> None:
    sealer = realm.sealer("users")
    sealer.seal(realm.envelope(), routing_key=ORDER)

    with pytest.raises(ConfigurationError, match="cannot seal a message of 'billing'"):
        sealer.seal(realm.envelope(sender="billing"), routing_key=ORDER)


def test_an_event_nobody_hears_is_not_sealed(realm: Realm) -> None:
    made = realm.envelope(kind=Kind.EVENT, name="orders.unheard", sender="orders")

    with pytest.raises(ConfigurationError, match="nobody to seal it to"):
        realm.sealer("orders").seal(made, routing_key="orders.unheard.v1")


@pytest.mark.parametrize("edge", [0, 1])
def test_the_cap_holds_to_the_byte(realm: Realm, edge: int) -> None:
    # Array, codec, compression, no headers, the length of the payload, no padding; and the tag.
    frame = 1 + 1 + 1 + 1 + 5 + 2 + 16
    payload = bytes(CONTENT_MAX - frame + edge)

    def sealed() -> bytes:
        return realm.sealed(payload=payload)

    if edge:
        with pytest.raises(MessageTooLargeError, match="send a reference"):
            sealed()
    else:
        assert len(split_parts(sealed()).content) == CONTENT_MAX


def test_a_message_at_the_cap_can_be_buried_and_replayed(realm: Realm) -> None:
    original = realm.sealed(payload=bytes(4 * 1024 * 1024))

    buried, replayed = realm.fault(original), realm.replay(original)

    assert CONTENT_MAX < len(split_parts(buried).content) <= CONTENT_MAX_WRAPPING
    opener = realm.opener("orders")
    verified = opener.verify(replayed, kinds=EVERY_KIND)
    assert opener.decrypt(verified).payload == original


def test_without_a_usable_bundle_nothing_is_sealed(realm: Realm) -> None:
    realm.stores["users"] = TrustStore(realm.keyrings["users"], ambient=realm.clock.ambient)

    with pytest.raises(ConfigurationError, match="no trust bundle"):
        realm.sealed()


def test_a_key_that_is_not_active_signs_nothing(realm: Realm) -> None:
    realm.publish(lambda payload: payload["services"]["users"]["sign"][0].update(state="next"))

    with pytest.raises(ConfigurationError, match="no signing key"):
        realm.sealed()


@pytest.fixture
def replaced(realm: Realm) -> tuple[bytes, bytes]:
    """The ids of two signing keys of users: one ends in an hour, the other one begins ten minutes before."""
    keyring = realm.keyrings["users"] = with_new_keys(realm.keyrings["users"])

    def edit(payload: dict[str, Any]) -> None:
        payload["services"]["users"] = identity_entry(keyring)
        old, new = payload["services"]["users"]["sign"]
        old.update(not_after=START_MS + 3_600_000)
        new.update(not_before=START_MS + 3_000_000)

    realm.publish(edit)
    return keyring.signing[0].kid, keyring.signing[1].kid


def test_a_key_signs_to_its_planned_end_and_the_next_one_from_then_on(
    realm: Realm, replaced: tuple[bytes, bytes]
) -> None:
    sealer, opener = realm.sealer("users"), realm.opener("orders")
    signers = []

    for seconds in (3_590, 10, 0.001, 10):
        realm.clock.advance(seconds)
        body = sealer.seal(realm.envelope(), routing_key=ORDER)
        signers.append(opener.verify(body, kinds=EVERY_KIND).header.address.skid)

    old, new = replaced
    assert signers == [old, old, new, new]


def test_the_time_that_a_message_says_decides_about_its_key(realm: Realm, replaced: tuple[bytes, bytes]) -> None:
    sealer = realm.sealer("users")
    late = realm.envelope()
    realm.clock.advance(3_601)
    bodies = [sealer.seal(made, routing_key=ORDER) for made in (realm.envelope(), late, realm.envelope())]

    opener = realm.opener("orders")
    signers = [opener.verify(body, kinds=EVERY_KIND).header.address.skid for body in bodies]

    old, new = replaced
    assert signers == [new, old, new]


def test_a_removed_rule_acts_at_once(realm: Realm) -> None:
    sealer = realm.sealer("users")
    sealer.seal(realm.envelope(), routing_key=ORDER)

    realm.publish(lambda payload: payload["policy"]["send"].clear())

    with pytest.raises(PolicyError):
        sealer.seal(realm.envelope(), routing_key=ORDER)


def test_what_was_found_out_about_a_way_is_kept_for_a_while_and_bounded(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "_WAYS_MAX", 2)
    sealer = realm.sealer("users")
    counts = []

    for version in (1, 1, 2, 3):
        sealer.seal(realm.envelope(version=version), routing_key=f"orders.place_order.v{version}")
        counts.append(len(sealer._ways))
    realm.clock.advance(61)
    sealer.seal(realm.envelope(), routing_key=ORDER)

    assert counts == [1, 1, 2, 1]
    assert len(sealer._ways) == 1


def test_each_asker_and_each_instance_of_it_has_a_way_of_its_own(realm: Realm) -> None:
    sealer = realm.sealer("orders")
    places = [(aud, NAMES.reply_queue(aud, instance * 16)) for aud in ("users", "billing") for instance in "ab"]

    def replied(aud: str, queue: str) -> tuple[str, str]:
        made = realm.envelope(kind=Kind.REPLY, sender="orders", audience=aud, bind=bytes(32))
        body = sealer.seal(made, routing_key=queue)
        return tuple(msgpack.unpackb(split_parts(body).header)[5:8:2])

    assert [replied(*place) for place in places * 2] == places * 2


def test_two_messages_never_share_salt_or_bytes(realm: Realm) -> None:
    made = realm.envelope(id=UUID(int=5))
    sealer = realm.sealer("users")

    bodies = {sealer.seal(made, routing_key=ORDER) for _ in range(50)}

    salts = {realm.opener("orders").verify(body, kinds=EVERY_KIND).header.salt for body in bodies}
    assert len(bodies) == len(salts) == 50


def test_a_namespace_is_part_of_the_message(realm: Realm) -> None:
    assert realm.opener("orders").verify(realm.sealed(), kinds=EVERY_KIND).exchange == NAMES.commands


def test_how_long_a_message_may_live_is_the_bundles_word(realm: Realm) -> None:
    assert realm.sealer("users").longest_life_ms() == 7 * 24 * 3_600_000


def test_an_unsigned_message_shows_its_leaf_and_its_size_alone(realm: Realm) -> None:
    unsigned = realm.sealer("users").prepare(realm.envelope(), routing_key="orders.place_order.v1")

    assert repr(unsigned) == f"Unsigned({unsigned.leaf.hex()}, {unsigned.size_bytes} bytes)"
