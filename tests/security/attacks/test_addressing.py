"""Authentic messages where they do not belong: kept for people to look at, never run."""

from collections.abc import Mapping
from typing import Any

import pytest

from messaging.core.topology import routing_key
from tests.support.arena import Arena, CancelOrder, Charge, GetOrder, OrderPlaced
from tests.support.realm import NAMES, resign


@pytest.mark.attack(17)
async def test_a_message_for_another_service_is_refused(arena: Arena) -> None:
    body = arena.sealed()

    outcome = await arena.struck(body, service="billing")

    outcome.assert_refused("audience", body)


@pytest.mark.attack(17)
@pytest.mark.parametrize("part", ["commands", "requests"])
async def test_what_only_billing_may_read_is_refused_by_orders(arena: Arena, part: str) -> None:
    body = arena.sealed(Charge())

    outcome = await arena.struck(body, part=part)

    outcome.assert_refused("audience", body)


@pytest.mark.attack(18)
async def test_an_event_that_is_not_subscribed_is_refused(arena: Arena) -> None:
    def only_billing_hears(payload: dict[str, Any]) -> None:
        payload["policy"]["subscribe"]["orders.order_lost"] = ["billing"]

    arena.realm.publish(only_billing_hears)
    body = arena.sealed(OrderPlaced(), name="orders.order_lost")

    outcome = await arena.struck(body, service="users", part="events")

    outcome.assert_refused("audience", body)


@pytest.mark.attack(18)
async def test_an_event_that_is_not_sealed_to_its_subscriber_is_skipped(arena: Arena) -> None:
    def users_hear_no_more(payload: dict[str, Any]) -> None:
        payload["policy"]["subscribe"]["orders.order_placed"] = ["billing"]

    arena.realm.publish(users_hear_no_more, to="orders")
    body = arena.sealed(OrderPlaced())

    outcome = await arena.struck(body, service="users", part="events")

    outcome.assert_skipped("audience")


@pytest.mark.attack(18)
async def test_an_event_of_another_publisher_is_malformed(arena: Arena) -> None:
    fields = {3: "billing", 4: arena.realm.signer("billing").kid}

    outcome = await arena.struck(
        resign_as(arena, "billing", arena.sealed(OrderPlaced()), fields), service="users", part="events"
    )

    outcome.assert_forged("malformed")


def resign_as(arena: Arena, name: str, body: bytes, fields: Mapping[int, object]) -> bytes:
    """Return a message that a service with keys of its own made of somebody else's."""
    return resign(body, arena.realm.signer(name), fields=fields)


@pytest.mark.attack(19)
@pytest.mark.parametrize("part", ["requests"])
async def test_a_command_in_the_queue_of_requests_is_refused(arena: Arena, part: str) -> None:
    body = arena.sealed()

    outcome = await arena.struck(body, part=part)

    outcome.assert_refused("audience", body)


@pytest.mark.attack(19)
async def test_a_request_in_the_queue_of_commands_is_refused_and_not_answered(arena: Arena) -> None:
    body = arena.sealed(GetOrder())

    outcome = await arena.struck(body)

    outcome.assert_refused("audience", body)


@pytest.mark.attack(19)
async def test_an_event_in_the_queue_of_commands_is_refused(arena: Arena) -> None:
    body = arena.sealed(OrderPlaced())

    outcome = await arena.struck(body, service="billing", part="commands")

    outcome.assert_refused("audience", body)


@pytest.mark.attack(19)
@pytest.mark.parametrize("part", ["events", "commands"])
async def test_a_fault_or_a_reply_in_a_queue_of_work_is_refused(arena: Arena, part: str) -> None:
    original = arena.sealed(Charge())
    fault = arena.realm.fault(original, sender="billing", name="billing.charge", origin=None)
    reply = arena.realm.reply(arena.sealed(GetOrder()), payload=b"\x81\xa2ok\xc0")

    outcome = await arena.struck(fault, reply, service="billing", part=part)

    outcome.assert_refused("audience", fault, reply)


@pytest.mark.attack(19)
async def test_a_fault_in_the_queue_of_the_wrong_kind_never_reaches_a_handler(arena: Arena) -> None:
    original = arena.sealed()
    fault = arena.realm.fault(original)

    outcome = await arena.struck(fault, service="users", part="events")

    outcome.assert_refused("audience", fault)


@pytest.mark.attack(20)
@pytest.mark.parametrize("attempt", [1, 2, 6])
async def test_a_hop_that_changed_the_delivery_alone_is_accepted(arena: Arena, attempt: int) -> None:
    body = arena.sealed()
    delivered = NAMES.queue("orders", "commands")
    assert routing_key("orders.place_order", 1) != delivered

    # By the return exchange, under the queue's own name: just what a rung of the ladder does.
    outcome = await arena.struck(body, x_attempt=attempt, x_first_failed=arena.clock.now_ms - 5_000)

    outcome.assert_ran()
    assert outcome.ran[0].context.attempt == attempt


@pytest.mark.attack(20)
async def test_a_real_retry_comes_back_by_the_ladder_and_runs(arena: Arena) -> None:
    failures = 2

    async def fails_at_first(_message: object, _context: object) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ConnectionError("not yet")

    arena.behave["orders"] = fails_at_first
    body = arena.sealed(CancelOrder())

    first = await arena.struck(body)
    then = await arena.elapsed(2.0)

    assert first.waiting == 1
    assert dict(first.counts) == {"retried": 1}
    assert dict(then.counts) == {"handled": 1}
    assert [run.context.attempt for run in arena.ran] == [1, 2, 3]


@pytest.mark.attack(62)
@pytest.mark.parametrize(
    "headers",
    [
        {"x-attempt": 0},
        {"x-attempt": -5},
        {"x-attempt": 1_001},
        {"x-attempt": True},
        {"x-attempt": "7"},
        {"x-attempt": 1 << 70},
        {"x-first-failed": -1},
        {"x-first-failed": "yesterday"},
        {"x-first-failed": 1 << 70},
        {"x-delivery-count": 99},
        {"x-death": [{"queue": "messaging.orders.commands", "reason": "rejected", "count": 99}]},
        {"type": "orders.cancel_order/1", "message_id": "0" * 32},
    ],
)
async def test_forged_headers_change_nothing(arena: Arena, headers: dict[str, Any]) -> None:
    arena.publish(
        NAMES.commands,
        routing_key("orders.place_order", 1),
        arena.sealed(),
        headers=headers,
        type="orders.cancel_order/1",
    )
    await arena.settled()

    # What the label says changes nothing; that it is wrong is counted.
    assert arena.counts("orders") == {"handled": 1, "mislabelled": 1}
    (run,) = arena.ran
    assert run.context.message_name == "orders.place_order"
    assert run.context.attempt == 1
    assert arena.said("replies") == []


@pytest.mark.attack(62)
async def test_a_forged_reply_to_is_no_place_for_an_answer(arena: Arena) -> None:
    spied = len(arena.said("replies"))
    arena.publish(
        NAMES.requests,
        routing_key("orders.get_order", 1),
        arena.sealed(GetOrder()),
        headers={"reply_to": NAMES.queue("billing", "commands"), "reply-to": "evil", "correlation_id": "evil"},
    )
    await arena.settled()

    assert arena.counts("orders") == {"handled": 1}
    assert len(arena.said("replies")) == spied + 1
    assert arena.bodies("billing", "commands") == []


@pytest.mark.attack(62)
async def test_a_claim_of_many_attempts_costs_attempts_alone(arena: Arena) -> None:
    async def fails(_message: object, _context: object) -> None:
        raise ConnectionError("always")

    arena.behave["orders"] = fails

    outcome = await arena.struck(arena.sealed(), x_attempt=999)

    assert dict(outcome.counts) == {"buried": 1}
    assert len(outcome.dead) == 1


@pytest.mark.attack(60)
async def test_a_replay_signed_by_a_service_is_refused(arena: Arena) -> None:
    original = arena.sealed()
    genuine = arena.realm.replay(original)
    fields = {3: "users", 4: arena.realm.signer("users").kid}
    body = resign_as(arena, "users", genuine, fields)

    outcome = await arena.struck(body)

    outcome.assert_refused("policy", body)


@pytest.mark.attack(60)
async def test_a_replay_by_the_failing_service_itself_is_refused(arena: Arena) -> None:
    genuine = arena.realm.replay(arena.sealed())
    body = resign_as(arena, "orders", genuine, {3: "orders", 4: arena.realm.signer("orders").kid})

    outcome = await arena.struck(body)

    outcome.assert_refused("policy", body)
