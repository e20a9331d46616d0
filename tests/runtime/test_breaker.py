"""A queue that pauses while what its handlers need is away."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from messaging import Context, Reject, RetryPolicy, Service
from messaging.core.fault import Fault
from messaging.runtime.breaker import Breaker
from messaging.runtime.consumer import GivenBack
from messaging.runtime.handling import Handling, Part
from messaging.runtime.router import Handler
from messaging.transports.base import Delivery
from tests.support.logs import Logs
from tests.support.shop import PlaceOrder
from tests.support.stage import Stage
from tests.support.waiting import eventually

POLICY = RetryPolicy(immediate=0, delays_s=(1.0,), break_after=3, break_for_s=10.0)


def handler(name: str = "orders.place", policy: RetryPolicy = POLICY) -> Handler:
    orders = Service("orders")

    @orders.on_command(PlaceOrder, retry=policy)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    [found] = orders.handlers
    return found


def unhandled() -> Handling:
    return Handling(cast("Delivery", SimpleNamespace(body=b"")), Part.COMMANDS)


class Queue:
    """A breaker, its clock, and what comes through it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.stopping = asyncio.Event()
        self.breaker = Breaker("q", default=RetryPolicy(), monotonic_s=lambda: self.now_s)

    async def handle(self, fault: Fault | None = None, *, by: Handler | None = None) -> None:
        handling = unhandled()
        async with self.breaker.passage(handling, stopping=self.stopping):
            handling.handler, handling.fault = by or handler(), fault


AWAY = Fault(error="ConnectionError", reason="away")
WRONG = Fault(error="Reject", reason="wrong", permanent=True)


async def test_it_opens_after_so_many_failures_in_a_row(logs: Logs) -> None:
    queue = Queue()

    for fault in (AWAY, AWAY, None, AWAY, AWAY):
        await queue.handle(fault)
    assert not queue.breaker.is_open
    await queue.handle(AWAY)

    assert queue.breaker.is_open
    [entry] = logs.of("breaker.opened")
    assert (entry["queue"], entry["failures"], entry["pause_s"]) == ("q", 3, 10.0)


async def test_what_is_wrong_for_good_does_not_count() -> None:
    queue = Queue()

    for _ in range(9):
        await queue.handle(WRONG)

    assert not queue.breaker.is_open


async def test_a_handler_that_did_not_ask_for_it_never_pauses_its_queue() -> None:
    queue = Queue()

    for _ in range(9):
        await queue.handle(AWAY, by=handler(policy=RetryPolicy()))

    assert not queue.breaker.is_open


async def test_what_reached_no_handler_says_nothing() -> None:
    queue = Queue()
    handling = unhandled()
    handling.fault = AWAY

    for _ in range(9):
        async with queue.breaker.passage(handling, stopping=queue.stopping):
            pass

    assert not queue.breaker.is_open


async def test_after_the_pause_one_is_tried_and_a_success_lets_all_go_on(logs: Logs) -> None:
    queue = Queue()
    for _ in range(3):
        await queue.handle(AWAY)
    entered: list[int] = []
    gate = asyncio.Event()

    async def work(number: int) -> None:
        handling = unhandled()
        async with queue.breaker.passage(handling, stopping=queue.stopping):
            entered.append(number)
            await gate.wait()
            handling.handler = handler()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(number))
        await asyncio.sleep(0.05)
        assert entered == []
        queue.now_s = 10.0
        await eventually(lambda: len(entered) == 1, what="one is tried")
        await asyncio.sleep(0.3)
        assert len(entered) == 1
        gate.set()

    assert len(entered) == 5
    assert not queue.breaker.is_open
    assert len(logs.of("breaker.closed")) == 1


async def test_a_try_that_fails_begins_the_pause_again() -> None:
    queue = Queue()
    for _ in range(3):
        await queue.handle(AWAY)

    queue.now_s = 10.0
    await queue.handle(AWAY)
    waiting = asyncio.create_task(queue.handle())
    await asyncio.sleep(0.05)

    assert not waiting.done()
    queue.now_s = 20.0
    await waiting
    assert not queue.breaker.is_open


async def test_a_try_that_ends_otherwise_leaves_the_place_to_the_next() -> None:
    queue = Queue()
    for _ in range(3):
        await queue.handle(AWAY)
    queue.now_s = 10.0
    handling = unhandled()

    with pytest.raises(GivenBack):
        async with queue.breaker.passage(handling, stopping=queue.stopping):
            raise GivenBack

    await queue.handle()
    assert not queue.breaker.is_open


async def test_what_is_held_is_given_back_when_the_service_stops() -> None:
    queue = Queue()
    for _ in range(3):
        await queue.handle(AWAY)
    waiting = asyncio.create_task(queue.handle())
    await asyncio.sleep(0)

    queue.stopping.set()

    with pytest.raises(GivenBack):
        await waiting


async def test_a_service_uses_up_no_attempts_while_its_partner_is_away() -> None:
    orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=(0.5,), break_after=2, break_for_s=30.0))
    runs: list[int] = []
    is_away = True

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(command.number)
        if is_away:
            raise ConnectionError("the partner is away")
        if command.number < 0:
            raise Reject("never")

    async with Stage(orders) as stage:
        for number in range(2):
            await stage.send(PlaceOrder(number=number), sender="users")
            await eventually(lambda want=number: len(runs) == want + 1)  # type: ignore[misc]
        for number in range(2, 6):
            await stage.send(PlaceOrder(number=number), sender="users")
        await asyncio.sleep(0.05)
        assert runs == [0, 1]

        is_away = False
        # What is held keeps a harness from coming to rest, so the clock is moved by hand.
        await stage._advance_to(stage.clock.now_ms() + 31_000)
        await eventually(lambda: set(runs) == set(range(6)), what="all were handled")
        await stage.settled()

        assert stage.depth("orders", "dead") == 0
