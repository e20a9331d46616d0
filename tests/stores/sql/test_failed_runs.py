"""Failed runs outlive the transactions that they were in."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging import Command, Context, Reject, RetryPolicy, Service
from messaging.core.fault import Attempt
from messaging.stores.base import InboxKey, StoreUnavailableError
from messaging.stores.sql import SqlStore
from messaging.testing import Harness

KEY = InboxKey("orders", "users", UUID(int=1))


class Ship(Command, name="orders.ship"):
    order_id: UUID


def runs(*times_ms: int) -> list[Attempt]:
    return [Attempt(at_ms=at_ms, error="ValueError") for at_ms in times_ms]


async def test_runs_of_several_deliveries_come_back_in_their_order(store: SqlStore) -> None:
    await store.failed_runs.note(KEY, runs(1, 2))
    await store.failed_runs.note(KEY, runs(3))

    assert list(await store.failed_runs.of(KEY, limit=10)) == runs(1, 2, 3)


async def test_only_the_last_ones_are_told_where_there_are_too_many(store: SqlStore) -> None:
    await store.failed_runs.note(KEY, runs(1, 2, 3))

    assert list(await store.failed_runs.of(KEY, limit=2)) == runs(2, 3)


@pytest.mark.parametrize(
    "other", [KEY._replace(service="billing"), KEY._replace(sender="ops:a"), KEY._replace(message_id=uuid4())]
)
async def test_each_message_has_its_own(store: SqlStore, other: InboxKey) -> None:
    await store.failed_runs.note(KEY, runs(1))

    assert await store.failed_runs.of(other, limit=10) == ()


async def test_rows_go_when_no_message_can_be_that_old(store: SqlStore, engine: AsyncEngine) -> None:
    await store.failed_runs.note(KEY, runs(1, 2))

    kept = await store.purge()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE messaging_failed_run SET keep_until_ms = 1"))
    gone = await store.purge()

    assert (kept, gone) == (0, 2)
    assert await store.failed_runs.of(KEY, limit=10) == ()


async def test_a_missing_table_is_local_trouble(store: SqlStore, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE messaging_failed_run"))

    with pytest.raises(StoreUnavailableError):
        await store.failed_runs.note(KEY, runs(1))
    with pytest.raises(StoreUnavailableError):
        await store.failed_runs.of(KEY, limit=1)


async def test_a_dead_letter_tells_when_each_run_failed_and_how_over_deliveries_and_replays(store: SqlStore) -> None:
    orders = Service("orders", store=store, retry=RetryPolicy(immediate=1, delays_s=(1.0,)))
    failures: list[Exception] = [ValueError("a"), OSError("b"), KeyError("c"), Reject("closed")]

    @orders.on_command(Ship)
    async def ship(_command: Ship, _context: Context) -> None:
        raise failures.pop(0)

    async with Harness(orders, Service("users")) as h:
        await h.send(Ship(order_id=uuid4()), sender="users")
        await h.settled()
        await h.advance(1.0)
        (first,) = h.dead("orders")
        await h.replay("orders", reason="once more")
        await h.settled()
        (second,) = h.dead("orders")

    errors = [run.error for run in first.fault.history]
    times_ms = [run.at_ms for run in first.fault.history]
    assert errors == ["ValueError", "OSError", "KeyError"]
    assert times_ms == sorted(times_ms)
    assert times_ms[2] - times_ms[1] >= 1_000
    assert [run.error for run in second.fault.history] == [*errors, "Reject"]
    assert (first.fault.attempts, second.fault.attempts) == (3, 4)


async def test_without_the_table_a_letter_tells_of_its_last_delivery(store: SqlStore, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE messaging_failed_run"))
    orders = Service("orders", store=store, retry=RetryPolicy(immediate=1, delays_s=(1.0,)))

    @orders.on_command(Ship)
    async def ship(_command: Ship, context: Context) -> None:
        raise ValueError(context.attempt)

    async with Harness(orders, Service("users")) as h:
        await h.send(Ship(order_id=uuid4()), sender="users")
        await h.settled()
        await h.advance(1.0)
        (letter,) = h.dead("orders")

    assert (letter.fault.attempts, len(letter.fault.history)) == (3, 1)
