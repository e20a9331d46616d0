"""The way in, driven from the outside: real services, real sealing, the embedded broker, a clock that stands still."""

import asyncio
from itertools import pairwise
from uuid import uuid4

import pytest

from messaging import (
    Context,
    InvalidPayloadError,
    Reject,
    RemoteError,
    RetryLater,
    RetryPolicy,
    Service,
)
from tests.support.logs import Logs
from tests.support.shop import (
    CancelOrder,
    CountOrders,
    GetOrder,
    NewPlaceOrder,
    OrderPlaced,
    OrderUnknown,
    OrderView,
    PlaceOrder,
)
from tests.support.stage import OPERATOR, Stage
from tests.support.waiting import eventually

LADDER_S = (1.0, 5.0, 30.0, 120.0, 600.0)


async def test_a_command_is_handled_once() -> None:
    orders = Service("orders")
    runs = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append((command, context.message_id, context.sender, context.attempt, context.message_name))

    async with Stage(orders) as stage:
        message_id = await stage.send(PlaceOrder(number=7), sender="users")
        await stage.settled()

        assert runs == [(PlaceOrder(number=7), message_id, "users", 1, "orders.place_order")]
        assert stage.depth("orders", "commands") == 0


async def test_an_event_reaches_every_subscribing_service_once() -> None:
    heard: list[tuple[str, int]] = []
    services = []
    for name in ("users", "billing", "audit"):
        service = Service(name)

        @service.on_event(OrderPlaced)
        async def hear(event: OrderPlaced, context: Context, name: str = name) -> None:
            heard.append((name, event.number))

        services.append(service)

    async with Stage(*services) as stage:
        await stage.publish(OrderPlaced(number=3))
        await stage.settled()

    assert sorted(heard) == [("audit", 3), ("billing", 3), ("users", 3)]


async def test_a_request_is_answered() -> None:
    orders = Service("orders")

    @orders.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        return OrderView(status=f"order {request.number} of {context.sender}")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 12

    async with Stage(orders) as stage:
        view = await stage.request(GetOrder(number=5), sender="users")
        count = await stage.request(CountOrders(), sender=OPERATOR)

    assert view == OrderView(status="order 5 of users")
    assert count == 12


async def test_a_declared_failure_is_raised_again_at_the_caller_with_its_fields() -> None:
    orders = Service("orders")

    @orders.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        raise OrderUnknown(number=request.number)

    async with Stage(orders) as stage:
        with pytest.raises(OrderUnknown) as caught:
            await stage.request(GetOrder(number=5), sender="users")
        await stage.settled()

        assert caught.value.number == 5
        assert stage.depth("orders", "dead") == 0


async def test_any_other_failure_arrives_as_a_remote_error_without_the_insides(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        raise LookupError("no such shelf")

    async with Stage(orders) as stage:
        with pytest.raises(RemoteError, match="no such shelf") as caught:
            await stage.request(GetOrder(), sender="users")
        await stage.settled()

    fault = caught.value.fault
    assert (fault.error, fault.service, fault.trace, fault.host) == ("LookupError", "orders", "", "")
    assert [entry["error"] for entry in logs.of("request.failed")] == ["LookupError"]


@pytest.mark.parametrize("request_", [GetOrder(), CountOrders()], ids=["msgpack", "json"])
async def test_an_answer_of_the_wrong_type_is_a_failure_of_the_handler(request_: GetOrder | CountOrders) -> None:
    orders = Service("orders")

    async def answer(request: object, context: Context) -> object:
        return {"nothing": "of the kind"}

    orders.on_request(type(request_))(answer)

    async with Stage(orders) as stage:
        with pytest.raises(RemoteError, match="does not fit its type"):
            await stage.request(request_, sender="users")


async def test_a_failing_command_is_tried_again_in_the_process_and_then_walks_the_ladder() -> None:
    orders = Service("orders")
    attempts: list[tuple[float, int]] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        attempts.append(((stage.clock.now_ms() - start_ms) / 1000, context.attempt))
        raise ConnectionError("the database is away")

    async with Stage(orders) as stage:
        start_ms = stage.clock.now_ms()
        await stage.send(PlaceOrder(), sender="users")
        await stage.advance(1_000)

        waits = [later - earlier for (earlier, _), (later, _) in pairwise(attempts)]
        assert waits == [0.0, *LADDER_S]
        assert [attempt for _, attempt in attempts] == [1, 2, 3, 4, 5, 6, 7]
        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.fault.attempts) == ("ConnectionError", 7)
        assert letter.fault.first_failed_at_ms == start_ms
        assert letter.fault.last_failed_at_ms == start_ms + 756_000


async def test_without_immediate_retries_the_first_failure_takes_the_first_rung() -> None:
    orders = Service("orders")
    attempts = []

    @orders.on_command(PlaceOrder, retry=RetryPolicy(immediate=0, delays_s=(2.0,)))
    async def place_order(command: PlaceOrder, context: Context) -> None:
        attempts.append(context.attempt)
        raise ConnectionError

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.advance(1.9)
        assert attempts == [1]

        await stage.advance(0.1)
        assert attempts == [1, 2]
        assert stage.depth("orders", "dead") == 1


async def test_a_failure_that_passes_ends_well() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        with stage.failing(place_order, ConnectionError, times=3):
            await stage.send(PlaceOrder(), sender="users")
            await stage.advance(6.0)

        assert len(stage.calls(place_order)) == 4
        assert stage.dead("orders") == []


async def test_retry_later_picks_the_first_rung_that_is_long_enough() -> None:
    orders = Service("orders")
    times: list[float] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        times.append((stage.clock.now_ms() - start_ms) / 1000)
        if len(times) == 1:
            raise RetryLater(20.0)

    async with Stage(orders) as stage:
        start_ms = stage.clock.now_ms()
        await stage.send(PlaceOrder(), sender="users")
        await stage.advance(40.0)

    assert times == [0.0, 30.0]


async def test_retry_later_without_any_rung_is_tried_again_in_the_process() -> None:
    orders = Service("orders")
    attempts = []

    @orders.on_command(PlaceOrder, retry=RetryPolicy(immediate=1, delays_s=()))
    async def place_order(command: PlaceOrder, context: Context) -> None:
        attempts.append(context.attempt)
        raise RetryLater(5.0)

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        assert attempts == [1, 2]
        assert stage.depth("orders", "dead") == 1


async def test_retry_later_in_a_request_answers_at_once_with_a_transient_fault() -> None:
    orders = Service("orders")

    @orders.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        raise RetryLater(5.0, "busy")

    async with Stage(orders) as stage:
        with pytest.raises(RemoteError, match="busy") as caught:
            await stage.request(GetOrder(), sender="users")

    assert (caught.value.fault.permanent, caught.value.fault.retry_after_s) == (False, 5.0)


async def test_a_rejected_command_is_buried_at_once() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("total must be positive")

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        assert len(stage.calls(place_order)) == 1
        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.fault.reason) == ("Reject", "total must be positive")


async def test_what_the_policy_declares_permanent_is_buried_at_once() -> None:
    orders = Service("orders", retry=RetryPolicy(permanent=(ZeroDivisionError,)))

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise ZeroDivisionError

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        assert len(stage.calls(place_order)) == 1
        assert stage.depth("orders", "dead") == 1


class StrangePlaceOrder(PlaceOrder, name="orders.place_order"):
    number: str  # type: ignore[assignment]


async def test_a_payload_that_does_not_fit_is_buried_at_once_without_its_values() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        await stage.send(StrangePlaceOrder(number="secret"), sender="users")
        await stage.settled()

        assert stage.calls(place_order) == []
        [letter] = stage.dead("orders")
        assert letter.fault.error == InvalidPayloadError.__name__
        assert "number" in letter.fault.reason
        assert "secret" not in letter.fault.model_dump_json()


async def test_a_handler_that_takes_too_long_is_stopped_and_tried_again() -> None:
    orders = Service("orders")
    runs = []

    @orders.on_command(PlaceOrder, timeout=0.01)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context.attempt)
        if context.attempt == 1:
            await asyncio.sleep(60)

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

    assert runs == [1, 2]


async def test_a_handler_that_awaits_what_somebody_cancelled_has_failed_and_does_not_go_round() -> None:
    orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))
    runs = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context.attempt)
        work = asyncio.get_running_loop().create_future()
        work.cancel()
        await work

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        [letter] = stage.dead("orders")
        assert runs == [1]
        assert "cancelled" in letter.fault.reason


async def test_the_fault_of_a_slow_handler_names_its_deadline() -> None:
    orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))

    @orders.on_command(PlaceOrder, timeout=0.01)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await asyncio.sleep(60)

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        raise TimeoutError("of its own")

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()

        reasons = {letter.message_name: letter.fault.reason for letter in stage.dead("orders")}
        assert reasons == {
            "orders.place_order": "the handler took longer than 0.01 s",
            "orders.cancel_order": "of its own",
        }


async def test_a_version_that_nobody_here_knows_walks_the_ladder_and_is_buried() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        stage.inject("orders", "commands", stage.sealed(NewPlaceOrder(), "users"))
        for delay_s in LADDER_S:
            await stage.settled()
            assert stage.dead("orders") == []
            assert len(stage.bodies("orders", f"retry.{round(delay_s * 1000)}")) == 1
            await stage.advance(delay_s)

        assert stage.calls(place_order) == []
        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.message_version) == ("UnknownMessageError", 2)


async def test_an_unknown_version_finds_its_rungs_whatever_the_handlers_use() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder, retry=RetryPolicy(delays_s=(2.0,)))
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        stage.inject("orders", "commands", stage.sealed(NewPlaceOrder(), "users"))
        await stage.advance(sum(LADDER_S))

        assert stage.depth("orders", "dead") == 1


async def test_an_unknown_request_is_answered_when_its_caller_can_wait_no_longer() -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders) as stage:
        # Another replica, of a newer version, has bound what this one does not know.
        stage.broker.exchange(stage.names.requests).bind(stage.names.queue("orders", "requests"), "orders.get_order.v1")
        asking = asyncio.create_task(stage.request(GetOrder(), sender="users", timeout=4.0))
        await stage.settled()
        assert len(stage.bodies("orders", "retry.1000")) == 1

        await stage.advance(2.5)
        with pytest.raises(RemoteError, match="no handler for request"):
            await asking


async def test_an_expired_command_is_buried_with_the_error_expired() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        body = stage.sealed(PlaceOrder(), "users", life_ms=1_000)
        await stage.advance(62.0)
        stage.inject("orders", "commands", body)
        await stage.settled()
        stage.inject("orders", "commands", body)
        await stage.settled()

        assert stage.calls(place_order) == []
        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.sender, letter.payload) == ("expired", "users", {"number": 1, "note": ""})


async def test_an_expired_request_is_dropped(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders) as stage:
        body = stage.sealed(CountOrders(), "users", life_ms=1_000)
        await stage.advance(62.0)
        stage.inject("orders", "requests", body)
        await stage.settled()

        assert stage.calls(count_orders) == []
        assert stage.depth("orders", "dead") == 0
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["stale"]


async def test_what_would_expire_before_its_next_attempt_is_buried_at_once(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise ConnectionError

    async with Stage(orders) as stage:
        stage.inject("orders", "commands", stage.sealed(PlaceOrder(), "users", life_ms=4_000))
        await stage.advance(1.0)

        assert len(stage.calls(place_order)) == 3
        [letter] = stage.dead("orders")
        assert letter.fault.error == "ConnectionError"
        assert [entry["reason"] for entry in logs.of("delivery.buried")] == ["would expire before its next attempt"]


async def test_the_same_bytes_twice_run_once(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        for _ in range(3):
            stage.inject("orders", "commands", body)
        await stage.settled()

        assert len(stage.calls(place_order)) == 1
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["duplicate", "duplicate"]


async def test_the_same_bytes_while_they_run_wait_on_a_rung_without_an_attempt_more() -> None:
    orders = Service("orders")
    release = asyncio.Event()
    runs = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context.attempt)
        await release.wait()

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        """Let a first clean delivery open the intake."""

    async with Stage(orders) as stage:
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()
        body = stage.sealed(PlaceOrder(), "users")
        stage.inject("orders", "commands", body)
        stage.inject("orders", "commands", body)
        await eventually(lambda: bool(stage.depth("orders", "retry.1000")))
        release.set()
        await stage.advance(1.0)

    assert runs == [1]


async def test_other_bytes_under_a_recorded_id_never_run(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        message_id = await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        await stage.send(PlaceOrder(number=2), sender="users", message_id=message_id)
        await stage.settled()

        assert stage.calls(place_order) == [PlaceOrder(number=1)]
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["duplicate.other_bytes"]


async def test_a_request_repeated_under_its_id_is_answered_from_the_first_run() -> None:
    orders = Service("orders")
    runs = []

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        runs.append(context.message_id)
        return len(runs)

    async with Stage(orders) as stage:
        users = await stage._publisher("users")
        message_id = uuid4()
        first = await users.request(CountOrders(), message_id=message_id)
        second = await users.request(CountOrders(), message_id=message_id)

    assert (first, second, runs) == (1, 1, [message_id])
