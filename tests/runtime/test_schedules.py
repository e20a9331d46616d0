import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from messaging import Command, Context, PublishNotConfirmedError, Service
from messaging.core.schedule import Cancellation
from messaging.runtime.schedules import Schedules
from messaging.stores.base import Outgoing, Released, Scheduled, StoreUnavailableError, Waiting
from messaging.testing import Harness
from tests.support.logs import Logs
from tests.support.waiting import eventually


class Remind(Command, name="orders.remind"):
    pass


class Rows:
    """A schedule in a list, with the port's methods; a row is due when `now_ms` says so."""

    def __init__(self) -> None:
        self.rows: list[Scheduled] = []
        self.sealed: list[Outgoing | None] = []
        self.refusals: list[tuple[UUID, str]] = []
        self.trouble: list[Exception] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.now_ms = 0

    async def add(self, scheduled: Scheduled) -> None:
        await self._asked()
        self.rows.append(scheduled)

    async def cancel(self, message_id: UUID) -> Cancellation:
        await self._asked()
        return Cancellation.UNKNOWN

    async def release(
        self, seal: Callable[[bytes], Awaitable[Outgoing | None]], *, limit: int, now_ms: int | None = None
    ) -> Released:
        due = [row for row in self.rows if row.deliver_at_ms <= self._now(now_ms)][:limit]
        self.sealed += [await seal(row.draft) for row in due]
        self.rows = [row for row in self.rows if row not in due]
        refusals, self.refusals = self.refusals, []
        return Released(sent=[row.message_id for row in due], failed=refusals)

    async def next_due_s(self, *, now_ms: int | None = None) -> float | None:
        await self._asked()
        return min(((row.deliver_at_ms - self._now(now_ms)) / 1000 for row in self.rows), default=None)

    async def waiting(self, *, limit: int) -> Sequence[Waiting]:
        return []

    def _now(self, now_ms: int | None) -> int:
        return self.now_ms if now_ms is None else now_ms

    async def _asked(self) -> None:
        await self.answers.wait()
        if self.trouble:
            raise self.trouble.pop(0)


class World:
    def __init__(self, h: Harness, orders: Service) -> None:
        self.h = h
        self.orders = orders
        self.rows = Rows()
        self.released = 0
        self.schedules = self.on(None)
        orders.publisher.later = self.schedules

    def on(self, clock: Callable[[], int] | None) -> Schedules:
        return Schedules(
            self.rows, service="orders", publisher=self.orders.publisher, on_released=self._note, clock=clock
        )

    def _note(self) -> None:
        self.released += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.schedules.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    orders = Service("orders")

    @orders.on_command(Remind)
    async def remind(command: Remind, context: Context) -> None: ...

    async with Harness(orders) as h:
        yield World(h, orders)


async def test_what_is_for_later_is_kept_as_a_draft_and_goes_nowhere_yet(world: World) -> None:
    message_id = await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=5))

    [row] = world.rows.rows
    assert (row.message_id, row.message_type) == (message_id, "orders.remind/1")
    assert row.deliver_at_ms == round(world.h.now.timestamp() * 1000) + 5000
    assert world.h.bodies("orders", "commands") == []
    assert world.h.sent == []


async def test_at_its_time_it_is_sealed_under_its_id_and_lives_from_then_on(world: World) -> None:
    message_id = await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=5), expires_in=60)
    world.rows.now_ms = world.rows.rows[0].deliver_at_ms

    assert await world.schedules.release_due() == 1

    [outgoing] = world.rows.sealed
    assert outgoing is not None
    assert outgoing.label.message_id == message_id.hex
    assert outgoing.route.routing_key == "orders.remind.v1"
    assert world.released == 1
    assert world.h.sent == [Remind()]


async def test_a_clock_of_a_test_decides_in_the_place_of_the_stores(world: World) -> None:
    await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=5))
    now_ms = round(world.h.now.timestamp() * 1000)

    early, in_time = world.on(lambda: now_ms + 4999), world.on(lambda: now_ms + 5000)

    assert await early.next_due_s() == pytest.approx(0.001)
    assert await early.release_due() == 0
    assert await in_time.release_due() == 1


async def test_the_loop_sends_what_becomes_due_and_looks_when_something_is_written(world: World, logs: Logs) -> None:
    async with world.running():
        world.rows.now_ms = round(world.h.now.timestamp() * 1000) + 60_000
        await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=60))
        await eventually(lambda: bool(world.released))

    [entry] = logs.of("schedule.released")
    assert entry["count"] == 1


async def test_what_cannot_be_sealed_is_told(world: World, logs: Logs) -> None:
    message_id = uuid4()
    world.rows.refusals = [(message_id, "the policy does not allow it")]

    assert await world.schedules.release_due() == 1

    [entry] = logs.of("schedule.postponed")
    assert (entry["message_id"], entry["reason"]) == (str(message_id), "the policy does not allow it")
    assert world.released == 0


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (StoreUnavailableError("the database does not answer"), "the database does not answer"),
        (RuntimeError("[parameters: the payload]"), "a defect: RuntimeError"),
    ],
)
async def test_the_loop_outlives_trouble_with_the_store(
    world: World, logs: Logs, trouble: Exception, reason: str
) -> None:
    world.rows.trouble = [trouble]

    async with world.running():
        await eventually(lambda: bool(logs.of("schedule.unavailable")))
        world.rows.now_ms = round(world.h.now.timestamp() * 1000) + 60_000
        await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=60))
        await eventually(lambda: bool(world.released))

    assert [entry["reason"] for entry in logs.of("schedule.unavailable")] == [reason]


async def test_when_the_store_does_not_answer_the_outcome_is_unknown_and_the_id_told(world: World) -> None:
    message_id = uuid4()
    deliver_at = world.h.now + timedelta(seconds=5)
    world.rows.answers.clear()

    with pytest.raises(PublishNotConfirmedError, match=r"did not answer within 0.01 s \(inside a handler") as caught:
        await world.orders.send(Remind(), message_id=message_id, deliver_at=deliver_at, timeout=0.01)

    assert caught.value.message_id == message_id


async def test_when_the_store_is_away_the_outcome_is_unknown_too(world: World) -> None:
    world.rows.trouble = [StoreUnavailableError("the database does not answer")]

    with pytest.raises(PublishNotConfirmedError, match="the database does not answer; repeat it with message_id="):
        await world.orders.send(Remind(), deliver_at=world.h.now + timedelta(seconds=5))


async def test_a_cancellation_has_a_deadline(world: World) -> None:
    world.rows.answers.clear()

    with pytest.raises(StoreUnavailableError, match=r"use context.cancel, in its transaction\); repeat it"):
        await world.schedules.cancel(uuid4(), timeout_s=0.01)


async def test_a_cancellation_is_answered_by_the_store(world: World) -> None:
    assert await world.orders.cancel(uuid4()) is Cancellation.UNKNOWN
