"""The attacks on what is remembered, over a durable store: processes that share one SQLite file, or one PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, cast
from uuid import uuid4

import msgpack
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging import Context, Reject
from messaging.security.outer import split_parts
from messaging.stores.base import Reservation
from messaging.stores.sql import SqlStore
from messaging.stores.sql.inbox import SqlInbox
from tests.security.attacks.catalogue import FORGED_IDS, IS_FULL
from tests.support.arena import Arena, PlaceOrder
from tests.support.flooding import flooded, forged
from tests.support.realm import NAMES
from tests.support.waiting import eventually, holds

FORGED: Final = FORGED_IDS if IS_FULL else 10_000
MID_AT: Final = 8


class Database:
    """A database, and the stores of any number of processes on it."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        # Beside the stores, which may be in the middle of something.
        self._aside = self._engine(isolation_level="AUTOCOMMIT")

    async def store(self) -> SqlStore:
        """Return the store of one more process."""
        store = SqlStore(self._engine())
        await store.create_tables()
        return store

    async def rename(self, table: str, name: str) -> None:
        """Give a table another name."""
        async with self._aside.connect() as connection:
            await connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))

    async def rows(self) -> int:
        """Return how many messages are remembered."""
        async with self._aside.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM messaging_inbox"))
            return int(found.scalar_one())

    def _engine(self, **options: Any) -> AsyncEngine:
        engine = create_async_engine(self._url, **options)
        self._stack.push_async_callback(engine.dispose)
        return engine


class DyingInbox:
    """An inbox beside which a process dies when it buries: before or after the mark."""

    def __init__(self, inbox: SqlInbox, moment: str, die: Callable[[], Awaitable[None]]) -> None:
        self._inbox = inbox
        self._moment = moment
        self._die = die

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inbox, name)

    async def fail(self, reservation: Reservation) -> bool:
        """Die at the moment."""
        if self._moment == "before":
            await self._die()
        held = await self._inbox.fail(reservation)
        await self._die()
        return held


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with AsyncExitStack() as stack:
        yield Database(database_url, stack)


@pytest.fixture
async def sql(database: Database, arena: Arena) -> Arena:
    """The arena, which ends before the database does; there orders remembers in the database."""
    await arena.services["orders"].stop()
    await arena.start("orders", store=await database.store())
    return arena


async def rejects(_message: object, _context: Context) -> None:
    """Fail for good."""
    raise Reject("never")


async def buried(arena: Arena, body: bytes) -> bytes:
    """Let orders bury a message, and return it."""
    arena.behave["orders"] = rejects
    outcome = await arena.struck(body)
    arena.behave.pop("orders")
    assert dict(outcome.counts) == {"buried": 1}
    return body


@pytest.mark.attack(50, 71)
async def test_the_same_bytes_run_once_in_two_processes(sql: Arena, database: Database) -> None:
    await sql.start("orders", as_name="orders'", store=await database.store())
    await sql.struck(*(sql.sealed() for _ in range(20)))
    mid = uuid4()
    body, other = sql.sealed(id=mid), sql.sealed(PlaceOrder(note="other"), id=mid)

    await sql.struck(*[body] * 30)
    await sql.struck(*[other] * 5)
    await sql.advance(3)

    (run,) = sql.runs_of(mid)
    assert run.message == PlaceOrder()
    assert await database.rows() == 21
    assert [sql.bodies("orders", part) for part in ("commands", "dead", "refused", "quarantine")] == [[], [], [], []]


@pytest.mark.attack(51)
async def test_a_process_that_starts_anew_remembers(sql: Arena, database: Database) -> None:
    body = sql.sealed()
    (await sql.struck(body)).assert_ran()
    sql.transport("orders").kill()
    await sql.services["orders"].stop()
    await sql.start("orders", store=await database.store())

    outcome = await sql.struck(body)

    outcome.assert_skipped("duplicate")


@pytest.mark.attack(52)
async def test_a_crash_inside_the_handler_leaves_no_trace_and_it_runs_again(sql: Arena, database: Database) -> None:
    died = asyncio.Event()

    async def dies(_message: object, _context: Context) -> None:
        sql.transport("orders").kill()
        died.set()
        await asyncio.Event().wait()

    sql.behave["orders"] = dies
    sql.inject(sql.sealed())
    await died.wait()
    victim = sql.services.pop("orders")
    # The end of its process is the end of its transaction.
    await victim.stop()
    await sql.start("orders", as_name="orders'", store=await database.store())
    await sql.settled()
    await sql.advance(3)

    assert [run.service for run in sql.ran] == ["orders", "orders'"]
    assert await database.rows() == 1
    assert sql.broker.bodies(NAMES.queue("orders", "commands")) == []


@pytest.mark.attack(53)
@pytest.mark.timeout(1_800)  # a million with ATTACKS_FULL
async def test_forged_ids_leave_no_row(sql: Arena, database: Database) -> None:
    body = sql.sealed()
    (await sql.struck(body)).assert_ran()
    sizes: list[int] = []

    for times in (FORGED // 10, FORGED - FORGED // 10):
        flood = await flooded(sql, forged(body, times))
        flood.assert_forged("signature", times=times, samples=10)
        sizes.append(await database.rows())

    assert sizes == [1, 1]


@pytest.mark.attack(54)
async def test_while_the_database_is_gone_deliveries_are_held(sql: Arena, database: Database) -> None:
    (await sql.struck(sql.sealed())).assert_ran()
    await database.rename("messaging_inbox", "elsewhere")
    orders, body = sql.services["orders"], sql.sealed()

    sql.inject(body)
    await eventually(lambda: not orders.health.is_ready, what="orders said that it is not ready")
    await holds(lambda: sql.bodies("orders", "commands") == [body] and len(sql.ran) == 1, 0.2, what="it was held")
    await database.rename("elsewhere", "messaging_inbox")
    await eventually(lambda: len(sql.ran) == 2, what="it ran once the table was back")
    await sql.settled()

    assert orders.health.is_ready
    assert [run.context.attempt for run in sql.ran] == [1, 1]
    assert [sql.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]


@pytest.mark.attack(55, 56)
async def test_what_failed_runs_again_by_a_replay_alone(sql: Arena, database: Database) -> None:
    body = await buried(sql, sql.sealed())
    replay = sql.realm.replay(body)

    raw = await sql.struck(body)
    replayed = await sql.struck(replay)
    again = await sql.struck(replay, body)

    raw.assert_skipped("duplicate")
    replayed.assert_ran()
    assert again.ran == ()
    assert await database.rows() == 2


@pytest.mark.attack(71)
async def test_other_bytes_do_not_run_inside_a_replay_of_what_failed(sql: Arena, database: Database) -> None:
    mid = uuid4()
    await buried(sql, sql.sealed(PlaceOrder(note="failed"), id=mid))
    replay = sql.realm.replay(sql.sealed(PlaceOrder(note="other"), id=mid))

    outcome = await sql.struck(replay)

    assert outcome.ran == ()
    assert sql.runs_of(mid)[0].message.note == "failed"
    assert await database.rows() == 1


@pytest.mark.attack(72)
async def test_a_retired_key_replays_what_failed_and_nothing_else(sql: Arena, database: Database) -> None:
    mid = uuid4()
    failed = await buried(sql, sql.sealed(PlaceOrder(note="failed"), id=mid))
    other = sql.sealed(PlaceOrder(note="other"), id=mid)
    fresh = sql.sealed(PlaceOrder(note="fresh"))
    sql.realm.publish(sql.realm.revoke("users", "retired"))
    replays = [sql.realm.replay(inner) for inner in (other, fresh, failed)]

    of_other, of_fresh, of_failed = [await sql.struck(replay) for replay in replays]

    of_other.assert_refused("unknown_key", replays[0])
    of_fresh.assert_refused("unknown_key", replays[1])
    of_failed.assert_ran()
    assert of_failed.ran[0].message.note == "failed"
    assert await database.rows() == 2


@pytest.mark.attack(73)
async def test_a_replay_that_comes_again_after_it_failed_runs_no_more(sql: Arena, database: Database) -> None:
    replay = sql.realm.replay(await buried(sql, sql.sealed()))
    sql.behave["orders"] = rejects

    first = await sql.struck(replay)
    sql.behave.pop("orders")
    again = await sql.struck(*[replay] * 6)

    assert [run.service for run in first.ran if run.service == "orders"] == ["orders"]
    assert dict(first.counts) == {"buried": 1}
    again.assert_skipped("duplicate", times=6)
    assert await database.rows() == 2


@pytest.mark.attack(73)
async def test_copies_of_a_replay_at_once_in_two_processes_run_once(sql: Arena, database: Database) -> None:
    replay = sql.realm.replay(await buried(sql, sql.sealed()))
    await sql.start("orders", as_name="orders'", store=await database.store())
    before = len(sql.ran)

    await sql.struck(*[replay] * 12)
    await sql.advance(3)

    assert len([run for run in sql.ran[before:] if run.service in ("orders", "orders'")]) == 1
    assert len(sql.bodies("orders", "dead")) == 1
    assert sql.bodies("orders", "commands") == []


@pytest.mark.attack(73)
async def test_copies_of_a_replay_at_once_that_all_fail_leave_no_effect_and_one_record(
    sql: Arena, database: Database
) -> None:
    replay = sql.realm.replay(await buried(sql, sql.sealed()))
    sql.behave["orders"] = rejects

    await sql.struck(*[replay] * 6)
    sql.behave.pop("orders")
    late = await sql.struck(replay)

    # Between the roll-back of one run and its mark another copy may begin; what it does is rolled back as well.
    ids = {msgpack.unpackb(split_parts(letter).header)[MID_AT] for letter in sql.bodies("orders", "dead")[1:]}
    assert len(ids) == 1
    assert late.ran == ()
    assert await database.rows() == 2


@pytest.mark.attack(84)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_while_burying_leaves_a_dead_letter(sql: Arena, database: Database, moment: str) -> None:
    died = asyncio.Event()

    async def die() -> None:
        sql.transport("orders").kill()
        died.set()
        await asyncio.Event().wait()

    store = await database.store()
    sql.behave = dict.fromkeys(("orders", "orders'"), rejects)
    sql.use_inbox("orders", cast("SqlInbox", DyingInbox(store.inbox, moment, die)))

    sql.inject(sql.sealed())
    await died.wait()
    # The end of its process is the end of its transaction.
    await sql.services.pop("orders").stop()
    await sql.start("orders", as_name="orders'", store=store)
    await sql.settled()
    await sql.advance(200)

    letters = sql.bodies("orders", "dead")
    assert len(letters) >= 1
    assert len({msgpack.unpackb(split_parts(letter).header)[MID_AT] for letter in letters}) == 1
    assert sql.bodies("orders", "commands") == []
    assert await database.rows() == 1
