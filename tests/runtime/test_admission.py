"""The crash fuse: one delivery at a time until something ended well, and what kills its workers ends up alone."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from messaging import Context, Reject, Service
from messaging.core.topology import Subscriptions
from messaging.errors import ConnectionLostError
from messaging.runtime.admission import SUSPECT_DELIVERIES
from messaging.runtime.settle import Settler
from messaging.transports.base import Delivery, Subscription
from messaging.transports.memory import MemoryTransport
from messaging.transports.memory.consumer import MemorySubscription
from tests.support.logs import Logs
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder
from tests.support.stage import Stage
from tests.support.waiting import eventually, holds

POISON = 13


@asynccontextmanager
async def running(stage: Stage, service: Service) -> AsyncIterator[Service]:
    """Run a service that comes late to the stage."""
    stage.trust.join(service.name, service.subscriptions)
    await service.start(seams=stage._seams)
    try:
        yield service
    finally:
        await service.stop()


async def age(stage: Stage, *bodies: bytes, times: int) -> None:
    """Let messages of the commands queue come back so often, as if their workers had died."""
    transport = MemoryTransport(stage.broker, ambient=stage.clock.ambient)
    await transport.connect()
    seen = dict.fromkeys(bodies, 0)

    def reject(delivery: Delivery) -> None:
        if seen.get(delivery.body, times) < times:
            seen[delivery.body] += 1
            delivery.reject()

    await transport.consume(stage.names.queue("orders", "commands"), reject, prefetch=0)
    await eventually(lambda: set(seen.values()) == {times})
    await transport.aclose()


async def wait_with_suspects(stage: Stage, orders: Service, numbers: range, *, suspects: Iterable[int]) -> None:
    """Put orders into the queue of a service that has not started; the suspects among them came back before."""
    stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
    stage.trust.join("orders", orders.subscriptions)
    bodies = [stage.sealed(PlaceOrder(number=number), "users") for number in numbers]
    for body in bodies:
        stage.inject("orders", "commands", body)
    await age(stage, *(bodies[number] for number in suspects), times=SUSPECT_DELIVERIES)


def _runs(service: Service, count: int) -> bool:
    return service.running == count


def a_service(started: list[int], gate: asyncio.Event) -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        started.append(command.number)
        await gate.wait()

    return orders


async def test_the_first_delivery_runs_alone_and_the_rest_together() -> None:
    started: list[int] = []
    gate = asyncio.Event()
    orders = a_service(started, gate)

    async with Stage(orders) as stage:
        for number in range(5):
            await stage.send(PlaceOrder(number=number), sender="users")
        await eventually(lambda: len(started) == 1)
        await holds(lambda: orders.running == 1, 0.05)

        gate.set()
        await stage.settled()
        gate.clear()
        for number in range(5):
            await stage.send(PlaceOrder(number=number), sender="users")
        await eventually(lambda: orders.running == 5)
        gate.set()


async def test_it_takes_four_times_as_many_once_as_many_have_ended_well() -> None:
    started: list[int] = []
    turns = asyncio.Semaphore(0)
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        started.append(command.number)
        await turns.acquire()

    widths = []
    async with Stage(orders, prefetch=20) as stage:
        for number in range(60):
            await stage.send(PlaceOrder(number=number), sender="users")
        for width in (1, 4, 16, 20):
            are_full = partial(_runs, orders, width)
            await eventually(are_full)
            await holds(are_full, 0.05)
            widths.append(orders.running)
            for _ in range(width):
                turns.release()
        for _ in range(60):
            turns.release()
        await stage.settled()

    assert widths == [1, 4, 16, 20]
    assert sorted(started) == list(range(60))


async def test_no_more_than_the_prefetch_run_at_once() -> None:
    started: list[int] = []
    gate = asyncio.Event()
    orders = a_service(started, gate)

    async with Stage(orders, prefetch=3) as stage:
        gate.set()
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        gate.clear()
        for number in range(5):
            await stage.send(PlaceOrder(number=number), sender="users")
        await eventually(lambda: orders.running == 3)
        await holds(lambda: orders.running == 3, 0.05)
        gate.set()
        await stage.settled()

    assert len(started) == 6


async def test_what_runs_or_has_not_begun_when_the_time_is_over_goes_back() -> None:
    started: list[int] = []
    gate = asyncio.Event()
    gate.set()
    orders = a_service(started, gate)

    async with Stage(drain_timeout_s=0) as stage:
        async with running(stage, orders):
            for number in range(5):
                await stage.send(PlaceOrder(number=number), sender="users")
            await stage.settled()
            gate.clear()
            for number in range(5, 15):
                stage.inject("orders", "commands", stage.sealed(PlaceOrder(number=number), "users"))
            await eventually(lambda: orders.running == 10)
        assert stage.depth("orders", "commands") == 10

        gate.set()
        async with running(stage, a_service(started, gate)):
            await stage.settled()
        assert stage.depth("orders", "commands") == 0

    assert set(started) == set(range(15))


async def test_a_message_that_came_back_again_and_again_runs_alone(logs: Logs) -> None:
    orders = Service("orders")
    beside: dict[int, int] = {}

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await asyncio.sleep(0)
        beside[command.number] = orders.running

    async with Stage() as stage:
        await wait_with_suspects(stage, orders, range(20), suspects=[10])

        async with running(stage, orders):
            await stage.settled()
            await eventually(lambda: len(beside) == 20)

    assert beside[10] == 1
    assert logs.events.count("consumer.narrowed") == 1


async def test_what_a_fresh_channel_brings_while_it_still_opens_runs_too(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Service("orders")
    ran: set[int] = set()

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await asyncio.sleep(0)
        ran.add(command.number)

    resize = MemorySubscription.resize

    async def resize_slowly(self: MemorySubscription, prefetch: int) -> None:
        await resize(self, prefetch)
        if prefetch == 1:
            await asyncio.sleep(0.05)

    monkeypatch.setattr(MemorySubscription, "resize", resize_slowly)

    async with Stage() as stage:
        await wait_with_suspects(stage, orders, range(20), suspects=[10])

        async with running(stage, orders):
            await eventually(lambda: ran == set(range(20)))

    assert logs.events.count("consumer.narrowed") == 1


async def test_a_message_that_came_back_again_and_again_runs_alone_also_when_it_comes_while_the_consumer_widens(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Service("orders")
    beside: dict[int, int] = {}
    resize = MemorySubscription.resize

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await asyncio.sleep(0)
        beside[command.number] = orders.running

    async def resize_slowly(self: MemorySubscription, prefetch: int) -> None:
        # As over AMQP: what the wider consumer brings is read before the broker's answer is told.
        await resize(self, prefetch)
        await eventually(lambda: len(beside) >= 10)

    monkeypatch.setattr(MemorySubscription, "resize", resize_slowly)

    async with Stage() as stage:
        await wait_with_suspects(stage, orders, range(20), suspects=[10])

        async with running(stage, orders):
            await eventually(lambda: len(beside) == 20)

    assert beside[10] == 1
    assert logs.events.count("consumer.narrowed") == 1


async def test_several_that_came_back_narrow_once_and_drive_nobody_to_the_fuse(logs: Logs) -> None:
    orders = Service("orders")
    ran: set[int] = set()

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await asyncio.sleep(0)
        ran.add(command.number)

    async with Stage() as stage:
        await wait_with_suspects(stage, orders, range(60), suspects=range(10, 60, 10))

        async with running(stage, orders):
            await eventually(lambda: ran == set(range(60)))
        assert stage.depth("orders", "dead") == 0

    assert logs.events.count("consumer.narrowed") == 1


async def test_it_stays_narrow_while_some_still_come_back_whatever_ended_while_it_narrowed(logs: Logs) -> None:
    orders = Service("orders")
    ran: set[int] = set()
    gate = asyncio.Event()

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        if 0 < command.number < 4:
            await gate.wait()
        ran.add(command.number)

    async with Stage(prefetch=4) as stage:
        stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
        stage.trust.join("orders", orders.subscriptions)
        bodies = [stage.sealed(PlaceOrder(number=number), "users") for number in range(20)]
        for body in bodies:
            stage.inject("orders", "commands", body)
        await age(stage, *bodies[4::3], times=SUSPECT_DELIVERIES)

        async with running(stage, orders):
            await eventually(lambda: logs.events.count("consumer.narrowed") == 1)
            gate.set()
            await eventually(lambda: ran == set(range(20)))

    assert logs.events.count("consumer.narrowed") == 1


async def test_what_kills_its_workers_is_buried_and_its_neighbours_are_not() -> None:
    handled: list[int] = []

    async def live_and_die(stage: Stage) -> bool:
        """Run one worker until it dies or has nothing left to do; tell whether it died."""
        orders, dead = Service("orders"), asyncio.Event()

        @orders.on_command(PlaceOrder)
        async def place_order(command: PlaceOrder, context: Context) -> None:
            if command.number == POISON:
                assert orders._parts is not None
                assert isinstance(orders._parts.transport, MemoryTransport)
                orders._parts.transport.kill()
                dead.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            handled.append(command.number)

        async with running(stage, orders):
            await eventually(lambda: dead.is_set() or not stage.depth("orders", "commands"))
        return dead.is_set()

    async with Stage(drain_timeout_s=0) as stage:
        subscriptions = Subscriptions(commands=frozenset({("orders.place_order", 1)}), rungs_ms=(1_000,))
        stage.broker.declare(stage.names.of_service("orders", subscriptions))
        stage.trust.join("orders")
        for number in range(40):
            stage.inject("orders", "commands", stage.sealed(PlaceOrder(number=number), "users"))
        crashes = 0
        while await live_and_die(stage):
            crashes += 1

        assert crashes == 10
        assert set(handled) == set(range(40)) - {POISON}
        [letter] = stage.dead("orders")
        assert letter.payload == {"number": POISON, "note": ""}
        assert (letter.fault.error, letter.is_replayable) == ("crash_loop", True)


async def test_events_have_the_fuse_too() -> None:
    users = Service("users")

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        raise AssertionError("it never runs")

    async with Stage() as stage:
        stage.broker.declare(stage.names.of_service("users", users.subscriptions))
        stage.trust.join("users", users.subscriptions)
        body = stage.sealed(OrderPlaced(), "orders")
        stage.inject("users", "events", body)
        transport = MemoryTransport(stage.broker, ambient=stage.clock.ambient)
        await transport.connect()
        seen: list[Delivery] = []

        def reject(delivery: Delivery) -> None:
            seen.append(delivery)
            if len(seen) <= 10:
                delivery.reject()

        await transport.consume(stage.names.queue("users", "events"), reject, prefetch=1)
        await eventually(lambda: len(seen) == 11)
        await transport.aclose()

        async with running(stage, users):
            await stage.settled()

        assert [letter.message_name for letter in stage.dead("users")] == ["orders.order_placed"]


async def test_a_defect_while_burying_ends_in_the_dead_letters_not_in_a_standstill(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("closed")

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    monkeypatch.setattr(Settler, "_bury_with", broken)

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        assert logs.events.count("delivery.abandoned") == 10
        assert len(reported) == 10
        [letter] = stage.dead("orders")
        assert letter.fault.error == "crash_loop"


async def test_a_defect_after_the_handler_ran_does_not_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Service("orders")
    runs: list[PlaceOrder] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(command)

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    monkeypatch.setattr(Settler, "_done", broken)

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        assert len(runs) == 1
        assert stage.dead("orders") == []


async def test_a_request_that_a_defect_stops_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    monkeypatch.setattr(Settler, "_done", broken)

    async with Stage(orders) as stage:
        stage.inject("orders", "requests", stage.sealed(CountOrders(), "users"))
        await stage.settled()

        assert stage.depth("orders", "requests") == 0
        assert len(stage.calls(count_orders)) == 1


async def test_a_width_that_cannot_be_changed_is_logged_and_work_goes_on(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    gate = asyncio.Event()
    gate.set()
    orders = a_service(started, gate)

    async def refuse(_: MemorySubscription, __: int) -> None:
        raise ConnectionLostError("away")

    monkeypatch.setattr(MemorySubscription, "resize", refuse)

    async with Stage(orders) as stage:
        for number in range(3):
            await stage.send(PlaceOrder(number=number), sender="users")
            await stage.settled()

    assert started == [0, 1, 2]
    assert [entry["reason"] for entry in logs.of("consumer.unresized")] == ["away"]


async def test_it_opens_up_even_when_the_first_delivery_ends_before_consume_has_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []
    gate = asyncio.Event()
    gate.set()
    orders = a_service(started, gate)
    consume = MemoryTransport.consume

    async def slowly(self: MemoryTransport, *args: Any, **kwargs: Any) -> Subscription:
        subscription = await consume(self, *args, **kwargs)
        await eventually(lambda: len(started) == 1)
        await asyncio.sleep(0.02)
        return subscription

    async with Stage() as stage:
        stage.trust.join("orders", orders.subscriptions)
        async with running(stage, orders):
            pass
        await stage.send(PlaceOrder(number=0), sender="users")
        monkeypatch.setattr(MemoryTransport, "consume", slowly)

        async with running(stage, orders):
            gate.clear()
            for number in range(1, 5):
                await stage.send(PlaceOrder(number=number), sender="users")
            await eventually(lambda: orders.running == 4)
            gate.set()
