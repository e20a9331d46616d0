"""The way out: deadlines, ids, what nobody hears, what nobody answers, and what was not sent."""

import asyncio
import math
from uuid import uuid4

import pytest

from messaging import (
    Command,
    ConfigurationError,
    Context,
    Event,
    InvalidPayloadError,
    PolicyError,
    PublishNotConfirmedError,
    RemoteError,
    Request,
    RequestTimeoutError,
    Service,
    UnroutableError,
)
from messaging.core.codec import pack_plain
from messaging.core.envelope import CODEC_MSGPACK, Kind
from messaging.core.fault import Fault
from messaging.core.topology import Binding, Queue, Subscriptions, Topology
from messaging.errors import MessageTooLargeError
from messaging.runtime.publisher import Publisher
from messaging.security.outer import split_parts
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, CountOrders, GetOrder, OrderPlaced, OrderUnknown, PlaceOrder
from tests.support.stage import Stage
from tests.support.waiting import eventually


def an_orders() -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    return orders


async def test_a_command_that_nobody_handles_names_its_routing_key_at_once() -> None:
    async with Stage(an_orders()) as stage:
        with pytest.raises(UnroutableError, match="nobody handles it") as caught:
            await stage.send(CancelOrder(), sender="users")

    assert caught.value.routing_key == "orders.cancel_order.v1"


async def test_a_request_that_nobody_answers_is_unroutable() -> None:
    async with Stage(an_orders()) as stage:
        with pytest.raises(UnroutableError) as caught:
            await stage.request(GetOrder(), sender="users")

    assert caught.value.routing_key == "orders.get_order.v1"


async def test_a_request_to_a_service_that_is_down_times_out_at_its_deadline(logs: Logs) -> None:
    orders = an_orders()
    message_id = uuid4()
    loop = asyncio.get_running_loop()

    async with Stage(orders) as stage:
        await orders.stop()
        users = await stage._publisher("users")
        started_s = loop.time()
        with pytest.raises(RequestTimeoutError, match="is orders running") as caught:
            await users.request(CountOrders(), timeout_s=0.05, message_id=message_id)
        took_s = loop.time() - started_s

    assert caught.value.message_id == message_id
    # Long before the deadline of other requests, even on a machine that stands still for seconds.
    assert 0.04 <= took_s < 8.0
    assert logs.events.count("request.timed_out") == 1


async def test_a_request_leaves_the_queue_with_its_deadline() -> None:
    orders = an_orders()

    async with Stage(orders) as stage:
        await orders.stop()
        with pytest.raises(RequestTimeoutError):
            await stage.request(CountOrders(), sender="users", timeout=0.02)
        assert stage.depth("orders", "requests") == 1
        await stage.advance(0.1)
        assert stage.depth("orders", "requests") == 0


async def test_a_request_without_confirm_times_out_as_well() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        await users.request(CountOrders())
        async with stage.broker.stalled():
            with pytest.raises(RequestTimeoutError):
                await users.request(CountOrders(), timeout_s=0.02)


@pytest.mark.parametrize("endless", [math.inf, -math.inf, math.nan])
async def test_a_deadline_that_never_comes_is_refused_and_holds_up_nobody(endless: float) -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        refused = [
            users.send(PlaceOrder(), timeout_s=endless),
            users.send(PlaceOrder(), expires_in_s=endless),
            users.request(CountOrders(), timeout_s=endless),
        ]
        outcomes = await asyncio.gather(
            users.send(PlaceOrder()), *refused, users.send(PlaceOrder()), return_exceptions=True
        )

    assert [type(outcome) for outcome in outcomes[1:4]] == [ConfigurationError] * 3
    assert all(str(outcome).endswith("seconds") for outcome in outcomes[1:4])
    assert not isinstance(outcomes[0], BaseException)
    assert not isinstance(outcomes[4], BaseException)


async def test_a_command_without_confirm_carries_its_id_for_a_repetition() -> None:
    message_id = uuid4()

    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        async with stage.broker.stalled():
            with pytest.raises(PublishNotConfirmedError) as caught:
                await users.send(PlaceOrder(), timeout_s=0.02, message_id=message_id)

    assert caught.value.message_id == message_id


async def test_an_event_without_subscribers_is_not_even_sealed(logs: Logs) -> None:
    async with Stage(an_orders()) as stage:
        stage.spy()
        await stage.publish(OrderPlaced(number=1))

        assert stage.spied() == []
        assert stage.published == [OrderPlaced(number=1)]
        assert logs.events.count("message.unheard") == 1


async def test_an_event_whose_subscribers_never_started_is_unheard_too(logs: Logs) -> None:
    users = Service("users")

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        pass

    async with Stage() as stage:
        stage.trust.join("users", users.subscriptions)
        await stage.publish(OrderPlaced(number=1))

    assert logs.events.count("message.unheard") == 1


@pytest.mark.parametrize(
    ("verb", "message"),
    [("send", OrderPlaced()), ("send", CountOrders()), ("publish", PlaceOrder()), ("request", PlaceOrder())],
)
async def test_the_wrong_verb_names_the_right_one(verb: str, message: object) -> None:
    rights = {Command: "send", Event: "publish", Request: "request"}
    right = next(name for kind, name in rights.items() if isinstance(message, kind))

    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        with pytest.raises(ConfigurationError, match=rf"use {right}\(\), not {verb}\(\)"):
            await getattr(users, verb)(message)


async def test_how_long_a_message_lives_is_the_callers_wish() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        stage.spy()
        await users.send(PlaceOrder(), expires_in_s=5.0)
        await users.send(PlaceOrder())

        opener = stage.opener("orders")
        seen = [opener.verify(body, kinds=frozenset({Kind.COMMAND})) for body in stage.spied()]
        assert [found.expires_at_ms - found.issued_at_ms for found in seen] == [5_000, 7 * 24 * 3_600_000]


@pytest.mark.parametrize("life_s", [0.0, -1.0])
async def test_no_life_at_all_is_refused(life_s: float) -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        with pytest.raises(ConfigurationError, match="more than 0 seconds"):
            await users.send(PlaceOrder(), expires_in_s=life_s)


async def test_an_id_that_is_no_uuid_is_named() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        with pytest.raises(ConfigurationError, match="message_id='abc' is no UUID"):
            await users.send(PlaceOrder(), message_id="abc")  # type: ignore[arg-type]


async def test_a_life_beyond_the_bundles_bound_is_refused() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        with pytest.raises(ConfigurationError, match="max_lifetime_s"):
            await users.send(PlaceOrder(), expires_in_s=8 * 24 * 3600.0)


async def test_what_policy_forbids_fails_at_the_sender_with_the_line_to_add() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        stage.change_bundle(lambda payload: payload["policy"].update(send=[]))
        with pytest.raises(PolicyError, match='"from": "users", "kind": "command"'):
            await users.send(PlaceOrder())


async def test_too_large_a_message_is_refused_before_it_is_sent() -> None:
    async with Stage(an_orders()) as stage:
        with pytest.raises(MessageTooLargeError):
            await stage.send(PlaceOrder(note="x" * (4 * 1024 * 1024)), sender="users")


async def test_messages_of_one_tick_share_a_signature() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        stage.spy()
        await asyncio.gather(*(users.send(PlaceOrder(number=number)) for number in range(5)))

        assert {split_parts(body).size for body in stage.spied()} == {5}
        await stage.settled()


async def test_two_publishes_in_flight_do_not_wait_for_one_another() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        async with stage.broker.stalled():
            sending = [asyncio.create_task(users.send(PlaceOrder(number=number))) for number in range(3)]
            await eventually(lambda: len(stage.broker._held) == 3)
        await asyncio.gather(*sending)


@pytest.mark.parametrize("payload", [{}, {"ok": 1, "fault": {}}, {"other": 1}, [1], "ok"])
async def test_an_answer_with_neither_ok_nor_fault_is_invalid(payload: object) -> None:
    orders = an_orders()

    async with Stage() as stage:
        stage.trust.join("orders", orders.subscriptions)
        stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
        users = await stage._publisher("users")
        asking = asyncio.create_task(users.request(CountOrders(), timeout_s=60.0))
        await answer_by_hand(stage, pack_plain(payload, CODEC_MSGPACK))
        with pytest.raises(InvalidPayloadError, match="neither ok nor fault"):
            await asking


async def test_an_answer_that_does_not_fit_its_type_is_invalid() -> None:
    orders = an_orders()

    async with Stage() as stage:
        stage.trust.join("orders", orders.subscriptions)
        stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
        users = await stage._publisher("users")
        asking = asyncio.create_task(users.request(CountOrders(), timeout_s=60.0))
        await answer_by_hand(stage, pack_plain({"ok": "many"}, CODEC_MSGPACK))
        with pytest.raises(InvalidPayloadError, match="does not fit its type"):
            await asking


async def test_a_declared_failure_whose_fields_do_not_fit_still_says_what_went_wrong() -> None:
    fault = Fault(error=OrderUnknown.failure_name, reason="no such order", fields={"number": "many"}, permanent=True)

    async with Stage() as stage:
        subscriptions = Subscriptions(requests=frozenset({("orders.get_order", 1)}))
        stage.trust.join("orders", subscriptions)
        stage.broker.declare(stage.names.of_service("orders", subscriptions))
        users = await stage._publisher("users")
        asking = asyncio.create_task(users.request(GetOrder(), timeout_s=60.0))
        await answer_by_hand(stage, pack_plain({"fault": fault.to_map()}, CODEC_MSGPACK))
        with pytest.raises(RemoteError, match="no such order") as caught:
            await asking

    assert caught.value.fault == fault


async def answer_by_hand(stage: Stage, payload: bytes) -> None:
    """Answer the one request that waits, as a service with its own ideas might."""
    await eventually(lambda: stage.depth("orders", "requests") == 1)
    [body] = stage.bodies("orders", "requests")
    asked = stage.opener("orders").verify(body, kinds=frozenset({Kind.REQUEST}))
    answerer: Publisher = await stage._publisher("orders")
    await answerer.reply(asked.envelope(), payload, leaf=asked.leaf, codec=CODEC_MSGPACK)


async def test_what_names_no_reply_queue_cannot_be_answered() -> None:
    async with Stage(an_orders()) as stage:
        users = await stage._publisher("users")
        envelope = stage.envelope(PlaceOrder(), "users")
        with pytest.raises(ConfigurationError, match="cannot be answered"):
            await users.reply(envelope, b"", leaf=bytes(32), codec=CODEC_MSGPACK)


async def test_the_harness_is_told_of_each_message_once() -> None:
    async with Stage(an_orders()) as stage:
        await stage.send(PlaceOrder(number=4), sender="users")
        await stage.request(CountOrders(), sender="users")

        assert stage.sent == [PlaceOrder(number=4)]
        assert stage.published == []


async def test_what_was_published_is_logged_by_name_and_id(logs: Logs) -> None:
    async with Stage(an_orders()) as stage:
        message_id = await stage.send(PlaceOrder(note="secret"), sender="users")

    [entry] = [entry for entry in logs.of("message.published") if entry["kind"] == "command"]
    assert (entry["message_id"], entry["correlation_id"]) == (str(message_id), str(message_id))
    assert "secret" not in str(logs.entries)


async def test_routes_are_those_of_the_table_of_kinds() -> None:
    async with Stage(an_orders()) as stage:
        stage.broker.declare(
            Topology(
                queues=(Queue(name="replies-spy"),),
                bindings=(Binding(exchange=stage.names.replies, queue="replies-spy", routing_key="#"),),
            )
        )
        stage.spy()
        await stage.send(PlaceOrder(), sender="users")
        await stage.request(CountOrders(), sender="users")
        await stage.settled()

        command, request = (parcel for parcel in stage.broker.queue("spy").parcels())
        [reply] = stage.broker.queue("replies-spy").parcels()
        assert (command.exchange, command.routing_key) == ("messaging.commands", "orders.place_order.v1")
        assert (request.exchange, request.routing_key) == ("messaging.requests", "orders.count_orders.v1")
        assert (command.expiration_ms, request.expiration_ms) == (None, 5_000)
        assert reply.routing_key.startswith("messaging.users.replies.")
