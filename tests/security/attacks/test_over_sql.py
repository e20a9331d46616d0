"""The attacks on what is remembered, over a durable store: two processes and one database."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgpack
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import Context, Reject
from messaging.security.outer import split_parts
from messaging.stores.sql import SqlStore
from tests.support.arena import Arena, PlaceOrder
from tests.support.realm import NAMES
from tests.support.waiting import eventually, holds

FORGED: Final = 2_000
MID_AT: Final = 8


class Database:
    """A database file, and the stores of any number of processes on it."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path = path
        self._stack = stack

    async def store(self) -> SqlStore:
        """Return the store of one more process."""
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}")
        self._stack.push_async_callback(engine.dispose)
        store = SqlStore(engine)
        await store.create_tables()
        return store

    async def run(self, statement: str) -> list[Any]:
        """Run a statement beside the stores, which may hold the file meanwhile."""
        return await asyncio.to_thread(self._run, statement)

    def _run(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            return connection.execute(statement).fetchall()

    async def rows(self) -> int:
        """Return how many messages are remembered."""
        return int((await self.run("SELECT count(*) FROM messaging_inbox"))[0][0])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with AsyncExitStack() as stack:
        yield Database(tmp_path / "inbox.db", stack)


@pytest.fixture
async def sql(database: Database, arena: Arena) -> Arena:
    """The arena, which ends before the database does; there orders remembers in the database."""
    await arena.services["orders"].stop()
    await arena.start("orders", store=await database.store())
    return arena


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
async def test_forged_ids_leave_no_row(sql: Arena, database: Database) -> None:
    body = sql.sealed()
    (await sql.struck(body)).assert_ran()
    fields: list[Any] = msgpack.unpackb(split_parts(body).header)
    at = body.index(fields[MID_AT])

    outcome = await sql.struck(*(body[:at] + os.urandom(16) + body[at + 16 :] for _ in range(FORGED)))

    outcome.assert_forged("signature", times=FORGED)
    assert await database.rows() == 1


@pytest.mark.attack(54)
async def test_while_the_database_is_gone_deliveries_are_held(sql: Arena, database: Database) -> None:
    (await sql.struck(sql.sealed())).assert_ran()
    await database.run("ALTER TABLE messaging_inbox RENAME TO elsewhere")
    orders, body = sql.services["orders"], sql.sealed()

    sql.inject(body)
    await eventually(lambda: not orders.health.is_ready, what="orders said that it is not ready")
    await holds(lambda: sql.bodies("orders", "commands") == [body] and len(sql.ran) == 1, 0.2, what="it was held")
    await database.run("ALTER TABLE elsewhere RENAME TO messaging_inbox")
    await eventually(lambda: len(sql.ran) == 2, what="it ran once the table was back")
    await sql.settled()

    assert orders.health.is_ready
    assert [run.context.attempt for run in sql.ran] == [1, 1]
    assert [sql.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]


@pytest.mark.attack(55, 56)
async def test_what_failed_runs_again_by_a_replay_alone(sql: Arena, database: Database) -> None:
    async def rejects(_message: object, _context: Context) -> None:
        raise Reject("never")

    sql.behave["orders"] = rejects
    body = sql.sealed()
    assert dict((await sql.struck(body)).counts) == {"buried": 1}
    sql.behave.pop("orders")
    replay = sql.realm.replay(body)

    raw = await sql.struck(body)
    replayed = await sql.struck(replay)
    again = await sql.struck(replay, body)

    raw.assert_skipped("duplicate")
    replayed.assert_ran()
    assert again.ran == ()
    assert await database.rows() == 2
