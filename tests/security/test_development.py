from uuid import uuid4

import pytest

from messaging.core.envelope import CODEC_RAW, Envelope, Kind
from messaging.core.topology import Names, Subscriptions, dead_routing_key
from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.content import pack_fault, split_fault
from messaging.security.development import DevelopmentTrust
from messaging.security.open import Opener
from messaging.security.outer import leaf_of
from messaging.security.seal import Sealer
from tests.support.realm import EVERY_KIND, Clock, envelope

NAMES = Names("messaging")
PLACED = Subscriptions(events=frozenset({("orders.order_placed", 1)}))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trust(clock: Clock) -> DevelopmentTrust:
    return DevelopmentTrust(ambient=clock.ambient)


def sealed(trust: DevelopmentTrust, clock: Clock, made: Envelope, routing_key: str) -> bytes:
    keyring, store = trust.operator(made.sender) if ":" in made.sender else trust.join(made.sender)
    return Sealer(keyring, store, NAMES, ambient=clock.ambient).seal(made, routing_key=routing_key)


def opener(trust: DevelopmentTrust, clock: Clock, name: str) -> Opener:
    keyring, store = trust.operator(name) if ":" in name else trust.join(name)
    return Opener(keyring, store, NAMES, ambient=clock.ambient)


def test_whoever_joins_can_send_to_whoever_joined(trust: DevelopmentTrust, clock: Clock) -> None:
    trust.join("users")
    trust.join("orders")

    body = sealed(trust, clock, envelope(clock), "orders.place_order.v1")

    receiver = opener(trust, clock, "orders")
    assert receiver.decrypt(receiver.verify(body, kinds=EVERY_KIND)).payload == b"\x81\xa1n\x01"


def test_events_are_sealed_to_those_who_subscribe(trust: DevelopmentTrust, clock: Clock) -> None:
    trust.join("users", PLACED)
    trust.join("billing", PLACED)
    keyring, store = trust.join("orders")
    made = envelope(clock, kind=Kind.EVENT, name="orders.order_placed", sender="orders")

    readers = Sealer(keyring, store, NAMES, ambient=clock.ambient).recipients(made)

    assert readers == ("billing", "group:ops", "users")


def test_joining_twice_keeps_the_keys_and_adds_what_is_handled(trust: DevelopmentTrust) -> None:
    first, store = trust.join("users")
    second, again = trust.join("users", PLACED)
    trust.join("users", PLACED)

    assert first is second
    assert store is again
    assert store.current.policy.audience_of_event("orders.order_placed") == ("users",)


def test_every_store_sees_each_bundle_at_once(trust: DevelopmentTrust) -> None:
    _, store = trust.join("users")
    before = store.current.version

    trust.join("orders")

    assert store.current.version == before + 1
    assert store.current.services == ("orders", "users")
    assert store.current.is_development
    assert store.current.realm.startswith("dev-")


def test_an_operator_sends_reads_and_replays(trust: DevelopmentTrust, clock: Clock) -> None:
    trust.join("users")
    trust.join("orders")
    original = sealed(trust, clock, envelope(clock, sender="ops:alice"), "orders.place_order.v1")
    made = envelope(
        clock,
        id=uuid4(),
        kind=Kind.FAULT,
        sender="orders",
        audience="orders",
        bind=leaf_of(original),
        payload=pack_fault(original, {"reason": "no"}),
    )
    letter = sealed(trust, clock, made, dead_routing_key("orders", None))
    alice = opener(trust, clock, "ops:alice")
    embedded, fault = split_fault(alice.decrypt(alice.verify_dead(letter, service="orders").letter))
    replay = envelope(
        clock,
        kind=Kind.REPLAY,
        sender="ops:alice",
        audience="orders",
        bind=leaf_of(embedded),
        payload=embedded,
        codec=CODEC_RAW,
    )
    orders = opener(trust, clock, "orders")

    outer = orders.verify(sealed(trust, clock, replay, "messaging.orders.commands"), kinds=EVERY_KIND)
    inner = orders.verify_replayed(orders.decrypt(outer).payload, outer, failed_before=False, force=True)

    assert fault == {"reason": "no"}
    assert orders.decrypt(inner).payload == b"\x81\xa1n\x01"


def test_operators_are_named_with_and_without_their_prefix(trust: DevelopmentTrust) -> None:
    assert trust.operator("alice")[0] is trust.operator("ops:alice")[0]


@pytest.mark.parametrize("name", ["Users", "ops", "", "a.b"])
def test_names_that_break_the_grammar_are_refused(trust: DevelopmentTrust, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a service"):
        trust.join(name)
    if name != "ops":
        with pytest.raises(ConfigurationError, match="cannot name an operator"):
            trust.operator(name)


def test_whoever_never_joined_has_no_key(trust: DevelopmentTrust, clock: Clock) -> None:
    trust.join("users")

    with pytest.raises(ConfigurationError, match=r"no keys of 'orders'.*start that service"):
        sealed(trust, clock, envelope(clock), "orders.place_order.v1")


def test_two_realms_share_nothing(trust: DevelopmentTrust, clock: Clock) -> None:
    other = DevelopmentTrust(ambient=clock.ambient)

    assert trust.join("users")[1].current.realm != other.join("users")[1].current.realm


def test_a_realm_may_use_suite_2() -> None:
    trust = DevelopmentTrust(ambient=Clock().ambient, suites=(2, 1))

    keyring, store = trust.join("orders")
    operator, _ = trust.operator("alice")

    assert store.current.suites == (2, 1)
    assert [key.suite for key in keyring.decryption.values()] == [2, 1]
    assert [key.suite for key in operator.groups[OPS_GROUP].values()] == [2, 1]


def test_a_renewed_bundle_says_the_same_for_another_life(trust: DevelopmentTrust, clock: Clock) -> None:
    _, store = trust.join("users", PLACED)
    before = store.current

    clock.now_ms += 60_000
    trust.renew()

    assert store.current.version == before.version + 1
    assert store.current.expires_at_ms == before.expires_at_ms + 60_000
    assert store.current.policy == before.policy
