"""On SQLite each statement takes one turn of the driver's thread, and the rules of transactions hold all the same."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from messaging.stores.sql.database import Database
from tests.support.waiting import eventually

IMMEDIATE = {"messaging_immediate": True}


def driver_of(connection: AsyncConnection) -> Any:
    pooled: Any = connection.sync_connection
    return pooled.connection.driver_connection


class Turns:
    """Counts what is handed to the driver's thread."""

    def __init__(self) -> None:
        self.taken = 0

    def watch(self, adapter: Any, _record: object) -> None:
        driver = adapter.driver_connection
        execute: Callable[..., Any] = driver._execute

        async def counted(*given: Any, **named: Any) -> Any:
            self.taken += 1
            return await execute(*given, **named)

        driver._execute = counted


def impatient(adapter: Any, _record: object) -> None:
    adapter.execute("PRAGMA busy_timeout = 20")
    adapter.execute("PRAGMA foreign_keys = ON")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'turns.db'}")
    Database(engine)
    event.listen(engine.sync_engine, "connect", impatient)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, word TEXT)"))
    await engine.dispose()
    yield engine
    await engine.dispose()


@pytest.fixture
def turns(engine: AsyncEngine) -> Turns:
    turns = Turns()
    event.listen(engine.sync_engine, "connect", turns.watch)
    return turns


async def warmed(engine: AsyncEngine, turns: Turns) -> None:
    """Open the first connection, which SQLAlchemy asks a few things."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    turns.taken = 0


async def test_a_transaction_takes_a_turn_for_each_statement_and_one_for_its_end(
    engine: AsyncEngine, turns: Turns
) -> None:
    await warmed(engine, turns)

    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO things VALUES (1, 'a')"))
        rows = (await connection.execute(text("SELECT word FROM things"))).all()

    assert [word for (word,) in rows] == ["a"]
    assert turns.taken == 3


async def test_what_writes_nothing_and_reads_nothing_takes_no_turn(engine: AsyncEngine, turns: Turns) -> None:
    await warmed(engine, turns)

    async with engine.begin():
        pass
    async with engine.connect() as connection:
        await connection.rollback()

    assert turns.taken == 0


async def test_rows_counts_and_many_rows_are_told_as_before(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        many = await connection.execute(
            text("INSERT INTO things VALUES (:id, :word)"), [{"id": number, "word": "x"} for number in range(5)]
        )
        changed = await connection.execute(text("UPDATE things SET word = 'y' WHERE id > 2"))
        returned = (await connection.execute(text("DELETE FROM things WHERE id > 2 RETURNING id"))).all()
        streamed = [row.id async for row in await connection.stream(text("SELECT id FROM things ORDER BY id"))]

    assert (many.rowcount, changed.rowcount) == (5, 2)
    assert sorted(number for (number,) in returned) == [3, 4]
    assert streamed == [0, 1, 2]


async def test_a_stream_is_in_the_transaction_that_it_begins(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        rows = await connection.stream(text("INSERT INTO things VALUES (1, 'a') RETURNING id"))
        assert [row.id async for row in rows] == [1]
        await connection.rollback()
    async with engine.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM things"))

    assert count == 0


async def test_a_writer_takes_the_lock_with_its_first_statement_and_gives_it_back(engine: AsyncEngine) -> None:
    writer = engine.execution_options(**IMMEDIATE)

    async with writer.connect() as first, writer.connect() as second:
        await first.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="locked"):
            await second.execute(text("SELECT 1"))
        await first.rollback()
        await second.rollback()
        assert await second.scalar(text("SELECT 1")) == 1


async def test_who_goes_on_although_the_lock_was_not_to_be_had_does_not_write_outside_of_a_transaction(
    engine: AsyncEngine,
) -> None:
    writer = engine.execution_options(**IMMEDIATE)

    async with writer.connect() as first, writer.connect() as second:
        await first.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="locked"):
            await second.execute(text("SELECT 1"))
        await first.rollback()
        await second.execute(text("INSERT INTO things VALUES (1, 'a')"))
        await second.rollback()
    async with engine.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM things"))

    assert count == 0


async def test_a_statement_that_fails_undoes_itself_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO things VALUES (1, 'a')"))
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO things VALUES (1, 'b')"))
    async with engine.connect() as connection:
        words = (await connection.execute(text("SELECT word FROM things"))).scalars().all()

    assert words == ["a"]


async def test_a_statement_that_is_cut_off_is_undone_before_the_connection_serves_again(engine: AsyncEngine) -> None:
    writer = engine.execution_options(**IMMEDIATE)
    entered, leave = threading.Event(), threading.Event()

    def slow() -> int:
        entered.set()
        leave.wait()
        return 1

    async def write() -> None:
        async with writer.connect() as connection:
            await driver_of(connection).create_function("slow", 0, slow)
            await connection.execute(text("INSERT INTO things VALUES (slow(), 'a')"))

    task = asyncio.create_task(write())
    await eventually(entered.is_set)
    task.cancel()
    leave.set()
    await asyncio.gather(task, return_exceptions=True)
    async with writer.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM things"))

    assert task.cancelled()
    assert count == 0


async def test_a_commit_that_fails_leaves_nothing(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(
            text("CREATE TABLE parts (of INTEGER REFERENCES things DEFERRABLE INITIALLY DEFERRED)")
        )
        await connection.execute(text("INSERT INTO parts VALUES (7)"))
        with pytest.raises(IntegrityError):
            await connection.commit()
        await connection.rollback()
        names = (await connection.execute(text("SELECT name FROM sqlite_master"))).scalars().all()

    assert "parts" not in names
