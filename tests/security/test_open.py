from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import Subscriptions
from messaging.errors import (
    AudienceError,
    ConfigurationError,
    Disposition,
    MalformedError,
    PolicyError,
    SealError,
    SignatureError,
    StaleMessageError,
    UnknownKeyError,
    UnsupportedError,
)
from messaging.security.bundle import KeyState
from messaging.security.content import pack_fault, split_fault
from messaging.security.open import REPLAY_WINDOW_MS, Opener
from messaging.security.outer import leaf_of
from messaging.security.trust import TrustStore
from messaging.security.verified import ExpectedReply, Verified
from tests.support.realm import EVERY_KIND, NAMES, START_MS, Realm, resign

COMMANDS = frozenset({Kind.COMMAND, Kind.REPLAY})
DAY_S = 24 * 3600


@pytest.fixture
def realm() -> Realm:
    return Realm()


def event(realm: Realm, **changes: Any) -> bytes:
    return realm.sealed(**({"kind": Kind.EVENT, "name": "orders.order_placed", "sender": "orders"} | changes))


# Where a message belongs.


def test_a_message_for_another_service_is_refused(realm: Realm) -> None:
    with pytest.raises(AudienceError, match="for 'orders', not for 'billing'") as caught:
        realm.opener("billing").verify(realm.sealed(), kinds=EVERY_KIND)

    assert caught.value.disposition is Disposition.REFUSED


def test_a_kind_of_another_queue_is_refused(realm: Realm) -> None:
    body = realm.sealed(kind=Kind.REQUEST, name="orders.get_order")

    with pytest.raises(AudienceError, match="does not belong into this queue") as caught:
        realm.opener("orders").verify(body, kinds=COMMANDS)

    assert caught.value.disposition is Disposition.REFUSED


def test_an_event_that_nobody_here_subscribes_is_refused(realm: Realm) -> None:
    with pytest.raises(AudienceError) as caught:
        realm.opener("orders").verify(event(realm), kinds=EVERY_KIND)

    assert caught.value.disposition is Disposition.REFUSED


def test_an_event_that_another_replica_subscribes_is_accepted(realm: Realm) -> None:
    opener = realm.opener("billing", subscriptions=Subscriptions())

    assert opener.verify(event(realm), kinds=EVERY_KIND).kind is Kind.EVENT


def test_a_new_version_of_a_subscribed_event_is_accepted(realm: Realm) -> None:
    assert realm.opener("billing").verify(event(realm, version=9), kinds=EVERY_KIND).version == 9


def test_the_hop_that_brought_it_says_nothing(realm: Realm) -> None:
    # After a retry the delivery's routing key is the queue; the signed one is what counts.
    verified = realm.opener("orders").verify(realm.sealed(), kinds=COMMANDS, queue="messaging.orders.commands")

    assert verified.routing_key == "orders.place_order.v1"


def test_another_suite_than_the_allowed_is_no_fallback(realm: Realm) -> None:
    with pytest.raises(UnsupportedError):
        realm.opener("orders", suites=frozenset({2})).verify(realm.sealed(), kinds=EVERY_KIND)


def test_a_refused_message_is_evidence_and_cannot_be_opened(realm: Realm) -> None:
    opener = realm.opener("billing")
    with pytest.raises(AudienceError) as caught:
        opener.verify(realm.sealed(), kinds=EVERY_KIND)

    assert isinstance(caught.value.evidence, Verified)
    for opening in (opener.decrypt, opener.opening):
        with pytest.raises(ConfigurationError, match="refused message"):
            opening(caught.value.evidence)


# Replies.


@pytest.fixture
def request_body(realm: Realm) -> bytes:
    return realm.sealed(kind=Kind.REQUEST, name="orders.get_order")


def expected(realm: Realm, request: bytes) -> ExpectedReply:
    asked = realm.opener("orders").verify(request, kinds=EVERY_KIND)
    return ExpectedReply(
        mid=asked.id.bytes, leaf=asked.leaf, aud=asked.audience, typ=asked.type, rto=asked.reply_to or ""
    )


def test_the_reply_to_a_pending_request_is_accepted(realm: Realm, request_body: bytes) -> None:
    opener = realm.opener("users")
    body = realm.reply(request_body, payload=b"\x81\xa2ok\x07")

    found = opener.peek_reply(body)
    verified = opener.verify_reply(body, expected(realm, request_body))

    assert found == realm.opener("orders").verify(request_body, kinds=EVERY_KIND).id
    assert opener.decrypt(verified).payload == b"\x81\xa2ok\x07"


def test_a_reply_needs_no_peek(realm: Realm, request_body: bytes) -> None:
    wanted = expected(realm, request_body)

    assert realm.opener("users").verify_reply(realm.reply(request_body), wanted).kind is Kind.REPLY


def test_peeking_finds_replies_alone(realm: Realm) -> None:
    opener = realm.opener("users")

    assert opener.peek_reply(b"junk") is None
    assert opener.peek_reply(realm.sealed()) is None


def test_slot_is_signed_and_can_be_peeked_at(realm: Realm) -> None:
    opener = realm.opener("orders")
    body = realm.sealed(slot=17)

    verified = opener.verify(body, kinds=EVERY_KIND)

    assert opener.peek_slot(body) == verified.slot == opener.decrypt(verified).slot == 17


def test_without_a_slot_there_is_nothing_to_peek_at(realm: Realm) -> None:
    opener = realm.opener("orders")

    assert opener.peek_slot(realm.sealed()) is None
    assert opener.peek_slot(b"junk") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"correlation_id": UUID(int=1)},
        {"bind": bytes(32)},
        {"version": 2},
        {"audience": "billing"},
    ],
)
def test_a_reply_to_anything_else_is_dropped(realm: Realm, request_body: bytes, changes: dict[str, Any]) -> None:
    wanted = expected(realm, request_body)
    if "audience" in changes:
        other = realm.sealed(
            kind=Kind.REQUEST, name="orders.get_order", reply_to="messaging.users.replies.ffffffffffffffff"
        )
        body = realm.reply(other, correlation_id=UUID(bytes=wanted.mid), bind=wanted.leaf)
    else:
        body = realm.reply(request_body, **changes)

    with pytest.raises(AudienceError) as caught:
        realm.opener("users").verify_reply(body, wanted)

    assert (caught.value.disposition, caught.value.evidence) == (Disposition.UNAUTHENTIC, None)


def test_a_reply_of_another_service_is_dropped(realm: Realm, request_body: bytes) -> None:
    wanted = replace(expected(realm, request_body), aud="billing")

    with pytest.raises(AudienceError):
        realm.opener("users").verify_reply(realm.reply(request_body), wanted)


def test_a_command_is_no_reply(realm: Realm, request_body: bytes) -> None:
    with pytest.raises(AudienceError):
        realm.opener("users").verify_reply(realm.sealed(), expected(realm, request_body))


def test_a_forged_reply_changes_nothing_for_the_true_one(realm: Realm, request_body: bytes) -> None:
    opener, wanted, true = realm.opener("users"), expected(realm, request_body), realm.reply(request_body)
    forged = resign(true, realm.signer("billing"))

    assert opener.peek_reply(forged) == UUID(bytes=wanted.mid)
    with pytest.raises(SignatureError):
        opener.verify_reply(forged, wanted)

    assert opener.verify_reply(true, wanted).accepted


def test_a_late_reply_is_stale(realm: Realm, request_body: bytes) -> None:
    wanted, body = expected(realm, request_body), realm.reply(request_body)
    realm.clock.advance(2 * DAY_S)

    with pytest.raises(StaleMessageError):
        realm.opener("users").verify_reply(body, wanted)


def test_an_operator_asks_and_is_answered(realm: Realm) -> None:
    request = realm.sealed(kind=Kind.REQUEST, name="orders.get_order", sender="ops:alice")
    wanted, opener = expected(realm, request), realm.opener("ops:alice")

    verified = opener.verify_reply(realm.reply(request, payload=b"answer"), wanted)

    assert opener.decrypt(verified).payload == b"answer"


# Faults.


def test_a_fault_reaches_the_origin_with_its_own_original(realm: Realm) -> None:
    original = realm.sealed()
    opener = realm.opener("users")

    fault = opener.verify(realm.fault(original), kinds=frozenset({Kind.FAULT}))
    embedded, described = split_fault(opener.decrypt(fault))
    own = opener.verify_own_original(embedded, fault)

    assert embedded == original
    assert described == {"error": "ValueError", "reason": "no"}
    assert own.leaf == fault.bind == leaf_of(original)


def fault_of(realm: Realm, original: bytes, **changes: Any) -> SealError:
    opener = realm.opener("users")
    fault = opener.verify(realm.fault(original, **changes), kinds=EVERY_KIND)
    embedded, _ = split_fault(opener.decrypt(fault))
    with pytest.raises(SealError) as caught:
        opener.verify_own_original(embedded, fault)
    return caught.value


def test_a_fault_about_what_i_never_sent_is_refused(realm: Realm) -> None:
    realm.publish(
        lambda payload: payload["policy"]["send"].append(
            {"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"}
        )
    )
    strangers, own, request = realm.sealed(sender="billing"), realm.sealed(), realm.sealed(
        kind=Kind.REQUEST, name="orders.get_order"
    )  # fmt: skip

    errors = [
        fault_of(realm, strangers),
        fault_of(realm, own, version=2),
        fault_of(realm, request, name="orders.get_order"),
        fault_of(realm, own, bind=bytes(32)),
        fault_of(realm, own, payload=pack_fault(b"junk", {})),
        fault_of(realm, own, payload=pack_fault(resign(own, realm.signer("billing")), {})),
    ]

    assert [type(error) for error in errors] == [AudienceError] * 4 + [MalformedError, SignatureError]
    assert {error.disposition for error in errors} == {Disposition.REFUSED}
    assert all(isinstance(error.evidence, Verified) for error in errors)


def test_a_fault_of_another_service_about_my_command_is_refused(realm: Realm) -> None:
    # billing cannot even name itself in a fault of a command that orders owns.
    with pytest.raises(ConfigurationError, match="do not fit"):
        realm.fault(realm.sealed(), sender="billing", origin="users")


def test_an_old_own_original_is_still_ones_own(realm: Realm) -> None:
    original = realm.sealed()
    realm.clock.advance(30 * DAY_S)
    opener = realm.opener("users")
    fault = opener.verify(realm.fault(original), kinds=EVERY_KIND)
    realm.publish(realm.revoke("users", "retired"))

    own = opener.verify_own_original(original, fault)

    assert own.key_state is KeyState.RETIRED


def test_an_original_under_a_compromised_key_is_refused(realm: Realm) -> None:
    original = realm.sealed()
    opener = realm.opener("users")
    fault = opener.verify(realm.fault(original), kinds=EVERY_KIND)
    realm.publish(realm.revoke("users", "compromise"))

    with pytest.raises(UnknownKeyError) as caught:
        opener.verify_own_original(original, fault)

    assert caught.value.disposition is Disposition.REFUSED


# Replays.


def outer_of(realm: Realm, original: bytes, service: str = "orders", **changes: Any) -> Verified:
    part = changes.get("part", "commands")
    body = realm.replay(original, audience=service, **changes)
    return realm.opener(service).verify(body, kinds=EVERY_KIND, queue=NAMES.queue(service, part))


def replayed(realm: Realm, original: bytes, outer: Verified, name: str = "orders", **options: Any) -> Verified:
    return realm.opener(name).verify_replayed(original, outer, **({"failed_before": True} | options))


def test_a_replayed_message_is_verified_and_opened_like_any_other(realm: Realm) -> None:
    original = realm.sealed()
    opener = realm.opener("orders")
    outer = outer_of(realm, original)
    inner = opener.decrypt(outer).payload

    found = opener.verify_replayed(inner, outer, failed_before=True)

    assert found.leaf == outer.bind
    assert opener.decrypt(found).payload == b"\x81\xa1n\x01"


def test_an_event_is_replayed_in_the_one_queue_that_failed(realm: Realm) -> None:
    original = event(realm)
    outer = outer_of(realm, original, "users", part="events", name="orders.order_placed")

    assert replayed(realm, original, outer, "users").kind is Kind.EVENT


@pytest.mark.parametrize(
    ("failed_before", "force", "runs"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_message_beyond_the_window_runs_if_it_is_known_or_forced(
    realm: Realm, failed_before: bool, force: bool, runs: bool
) -> None:  # fmt: skip
    original = event(realm)
    realm.clock.now_ms += REPLAY_WINDOW_MS + 1
    outer = outer_of(realm, original, "users", part="events", name="orders.order_placed")

    if runs:
        assert replayed(realm, original, outer, "users", failed_before=failed_before, force=force).accepted
        return
    with pytest.raises(AudienceError, match="force") as caught:
        replayed(realm, original, outer, "users", failed_before=failed_before, force=force)

    assert caught.value.disposition is Disposition.REFUSED


def test_expiry_is_waived_within_the_window(realm: Realm) -> None:
    original = realm.sealed()
    realm.clock.now_ms += REPLAY_WINDOW_MS

    assert replayed(realm, original, outer_of(realm, original), failed_before=False).accepted


def test_force_needs_a_grant_of_its_own(realm: Realm) -> None:
    original = realm.sealed()
    outer = outer_of(realm, original)

    with pytest.raises(PolicyError, match="force a replay"):
        replayed(realm, original, outer, force=True)


def test_a_grant_for_one_name_does_not_replay_another(realm: Realm) -> None:
    def narrow(payload: dict[str, Any]) -> None:
        payload["policy"]["replay"][0]["name"] = "orders.cancel"
        payload["policy"]["send"].append({"from": "users", "kind": "command", "name": "orders.*", "to": "orders"})

    original = realm.sealed()
    outer = outer_of(realm, original)
    realm.publish(narrow)

    with pytest.raises(PolicyError, match=r"replay 'orders\.place_order'"):
        replayed(realm, original, outer)


def test_a_sender_whose_grant_is_gone_is_not_replayed(realm: Realm) -> None:
    original = realm.sealed()
    outer = outer_of(realm, original)
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    with pytest.raises(PolicyError) as caught:
        replayed(realm, original, outer)

    assert caught.value.disposition is Disposition.REFUSED


@pytest.mark.parametrize(
    ("reason", "failed_before", "runs"),
    [("retired", True, True), ("retired", False, False), ("compromise", True, False)],
)
def test_the_state_of_the_key_now_decides(realm: Realm, reason: str, failed_before: bool, runs: bool) -> None:
    original = realm.sealed()
    outer = outer_of(realm, original)
    realm.publish(realm.revoke("users", reason))

    if runs:
        assert replayed(realm, original, outer, failed_before=failed_before).key_state is KeyState.RETIRED
        return
    with pytest.raises(UnknownKeyError) as caught:
        replayed(realm, original, outer, failed_before=failed_before)

    assert caught.value.disposition is Disposition.REFUSED


def test_only_the_very_bytes_that_are_bound_run(realm: Realm) -> None:
    original, other = realm.sealed(), realm.sealed()
    outer = outer_of(realm, original)
    edited = resign(original, realm.signer("billing"))

    with pytest.raises(AudienceError, match="bound to"):
        replayed(realm, other, outer)
    with pytest.raises(SignatureError):
        replayed(realm, edited, outer)


def test_what_is_inside_fits_what_is_outside(realm: Realm) -> None:
    original, placed = realm.sealed(), event(realm)
    request = realm.sealed(kind=Kind.REQUEST, name="orders.get_order")
    wrong = [
        (request, outer_of(realm, request, version=1)),
        (original, outer_of(realm, original, version=2)),
        (placed, outer_of(realm, placed, name="orders.order_placed", part="commands")),
        (realm.replay(original), outer_of(realm, realm.replay(original))),
    ]

    for inner, outer in wrong:
        with pytest.raises(AudienceError, match="does not fit"):
            replayed(realm, inner, outer)


def test_a_message_of_the_future_is_not_replayed(realm: Realm) -> None:
    original = realm.sealed()
    outer = outer_of(realm, original)
    realm.clock.now_ms -= 120_000

    with pytest.raises(StaleMessageError) as caught:
        replayed(realm, original, outer)

    assert caught.value.disposition is Disposition.LAG


def test_a_replay_is_read_from_the_queue_it_names(realm: Realm) -> None:
    with pytest.raises(AudienceError, match="replay is for queue"):
        realm.opener("orders").verify(realm.replay(realm.sealed()), kinds=COMMANDS, queue="messaging.orders.events")


def test_a_replay_signed_by_a_service_is_denied(realm: Realm) -> None:
    body = resign(
        realm.replay(realm.sealed()), realm.signer("billing"), fields={3: "billing", 4: realm.signer("billing").kid}
    )

    with pytest.raises(PolicyError) as caught:
        realm.opener("orders").verify(body, kinds=COMMANDS)

    assert caught.value.disposition is Disposition.REFUSED


def test_a_replay_by_a_revoked_operator_is_nobodys(realm: Realm) -> None:
    body = realm.replay(realm.sealed())
    realm.publish(realm.revoke("ops:alice", "compromise"))

    with pytest.raises(UnknownKeyError) as caught:
        realm.opener("orders").verify(body, kinds=COMMANDS)

    assert caught.value.disposition is Disposition.UNAUTHENTIC


# Dead queues.


@pytest.mark.parametrize("reader", ["orders", "ops:alice"])
def test_a_dead_letter_is_read_long_after(realm: Realm, reader: str) -> None:
    original = realm.sealed()
    body = realm.fault(original)
    realm.clock.advance(80 * DAY_S)
    opener = realm.opener(reader)

    dead = opener.verify_dead(body, service="orders")
    embedded, _ = split_fault(opener.decrypt(dead.letter))
    archived = opener.verify_archived(embedded)

    assert not dead.is_raw
    assert dead.is_replayable
    assert opener.decrypt(archived).payload == b"\x81\xa1n\x01"


def test_a_letter_that_the_broker_buried_is_verified_whole(realm: Realm) -> None:
    opener = realm.opener("ops:alice")
    bodies = [(realm.sealed(), "orders"), (event(realm), "users"), (realm.replay(realm.sealed()), "orders")]

    for body, service in bodies:
        dead = opener.verify_dead(body, service=service)
        assert dead.is_raw
        assert dead.is_replayable


@pytest.mark.parametrize("service", ["users", "billing"])
def test_a_letter_of_another_service_is_not_listed(realm: Realm, service: str) -> None:
    opener = realm.opener("ops:alice")

    for body in (realm.sealed(), realm.fault(realm.sealed())):
        with pytest.raises(AudienceError):
            opener.verify_dead(body, service=service)


def test_a_request_is_no_dead_letter(realm: Realm) -> None:
    with pytest.raises(AudienceError):
        realm.opener("ops:alice").verify_dead(
            realm.sealed(kind=Kind.REQUEST, name="orders.get_order"), service="orders"
        )


def test_a_raw_letter_whose_sender_has_no_right_any_more_is_not_listed(realm: Realm) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    with pytest.raises(PolicyError):
        realm.opener("ops:alice").verify_dead(body, service="orders")


def test_dead_letters_show_the_state_of_the_key(realm: Realm) -> None:
    body = realm.fault(realm.sealed())
    realm.publish(realm.revoke("orders", "compromise"))

    dead = realm.opener("ops:alice").verify_dead(body, service="orders")

    assert dead.letter.key_state is KeyState.COMPROMISED
    assert not dead.is_replayable


def test_the_archive_tells_forgeries(realm: Realm) -> None:
    opener = realm.opener("ops:alice")

    with pytest.raises(SignatureError):
        opener.verify_archived(resign(realm.sealed(), realm.signer("billing")))
    with pytest.raises(UnknownKeyError):
        opener.verify_archived(resign(realm.sealed(), realm.signer("users"), fields={3: "nobody"}))


def test_without_a_bundle_reading_is_local_trouble(realm: Realm) -> None:
    body = realm.fault(realm.sealed())
    keyring = realm.keyrings["ops:alice"]
    opener = Opener(keyring, TrustStore(keyring, ambient=realm.clock.ambient), NAMES, ambient=realm.clock.ambient)

    with pytest.raises(UnknownKeyError) as caught:
        opener.verify_dead(body, service="orders")

    assert caught.value.disposition is Disposition.LOCAL


def test_local_trouble_stays_local_inside_a_replay(realm: Realm) -> None:
    original = realm.sealed()
    outer = outer_of(realm, original)
    realm.clock.now_ms = START_MS + 500 * DAY_S * 1000

    with pytest.raises(UnknownKeyError) as caught:
        replayed(realm, original, outer)

    assert caught.value.disposition is Disposition.LOCAL


def test_ids_are_the_senders(realm: Realm) -> None:
    message_id = uuid4()

    assert realm.opener("orders").verify(realm.sealed(id=message_id), kinds=EVERY_KIND).id == message_id
