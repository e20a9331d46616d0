"""On SQLite each statement takes one turn of the driver's thread, and the rules of transactions hold all the same."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, Table, Text, event, insert, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from messaging.stores.sql import quick
from messaging.stores.sql.database import Database
from messaging.stores.sql.quick import IN_A_ROW_MAX
from tests.support.waiting import eventually

IMMEDIATE = {"messaging_immediate": True}


class Base(DeclarativeBase):
    """Of the one table here."""


class Thing(Base):
    """A row."""

    __table__ = Table("things", Base.metadata, Column("id", Integer, primary_key=True), Column("word", Text))


ROW = insert(Thing.__table__)


def adapter_of(connection: AsyncConnection) -> Any:
    pooled: Any = connection.sync_connection
    return pooled.connection.dbapi_connection


def driver_of(connection: AsyncConnection) -> Any:
    return adapter_of(connection).driver_connection


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


@pytest.fixture(autouse=True)
def any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts here is who runs what: a machine that stalls must not make a row look slow."""
    monkeypatch.setattr(quick, "_QUICK_S", 3600.0)


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


async def test_rows_go_in_without_a_turn_once_the_writer_has_the_lock_and_they_proved_quick(
    engine: AsyncEngine, turns: Turns
) -> None:
    await warmed(engine, turns)

    async with engine.execution_options(**IMMEDIATE).begin() as connection:
        results = [await connection.execute(ROW, {"id": number, "word": "a"}) for number in range(9)]
        rows = await connection.scalar(text("SELECT count(*) FROM things"))

    # The first row with the begin, the question, the commit.
    assert turns.taken == 3
    assert rows == 9
    assert [result.rowcount for result in results] == [1] * 9
    assert [tuple(result.inserted_primary_key or ()) for result in results] == [(number,) for number in range(9)]


async def test_a_session_writes_its_rows_the_same_way(engine: AsyncEngine, turns: Turns) -> None:
    await warmed(engine, turns)
    connection = await engine.execution_options(**IMMEDIATE).connect()
    await connection.begin()

    for number in range(9):
        async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
            session.add(Thing(id=number, word="a"))
            await session.flush()
    await connection.commit()
    rows = await connection.scalar(text("SELECT count(*) FROM things"))
    await connection.close()

    assert rows == 9
    assert turns.taken < 9


async def test_who_has_not_the_writers_lock_waits_for_it_in_the_thread(engine: AsyncEngine, turns: Turns) -> None:
    await warmed(engine, turns)

    async with engine.begin() as connection:
        for number in range(4):
            await connection.execute(ROW, {"id": number, "word": "a"})

    assert turns.taken == 5


async def turns_of_four_rows(engine: AsyncEngine) -> int:
    turns = Turns()
    Database(engine)
    event.listen(engine.sync_engine, "connect", turns.watch)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, word TEXT)"))
    turns.taken = 0
    async with engine.execution_options(**IMMEDIATE).begin() as connection:
        for number in range(4):
            await connection.execute(ROW, {"id": number, "word": "a"})
    taken = turns.taken
    await engine.dispose()
    return taken


async def test_without_write_ahead_logging_every_row_takes_its_turn() -> None:
    # A database in memory knows no such logging.
    taken = await turns_of_four_rows(create_async_engine("sqlite+aiosqlite:///:memory:"))

    assert taken == 5


async def test_an_application_that_keeps_connections_to_their_thread_is_heard(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'kept.db'}"

    usual = await turns_of_four_rows(create_async_engine(url))
    kept = await turns_of_four_rows(create_async_engine(f"{url}2", connect_args={"check_same_thread": True}))

    assert (usual, kept) == (2, 5)


async def test_many_rows_let_others_have_the_event_loop_in_between(engine: AsyncEngine, turns: Turns) -> None:
    await warmed(engine, turns)
    turned = 0

    async def watch() -> None:
        nonlocal turned
        while True:
            await asyncio.sleep(0)
            turned += 1

    async with engine.execution_options(**IMMEDIATE).begin() as connection:
        await connection.execute(ROW, {"id": 0, "word": "a"})
        watching = asyncio.create_task(watch())
        for number in range(1, 2 * IN_A_ROW_MAX + 3):
            await connection.execute(ROW, {"id": number, "word": "a"})
        watching.cancel()

    assert turned
    assert turns.taken == 4


async def test_a_row_that_goes_in_at_once_fails_alone_and_as_ever(engine: AsyncEngine) -> None:
    async with engine.execution_options(**IMMEDIATE).begin() as connection:
        await connection.execute(ROW, {"id": 1, "word": "a"})
        await connection.execute(ROW, {"id": 2, "word": "a"})
        with pytest.raises(IntegrityError, match="UNIQUE"):
            await connection.execute(ROW, {"id": 2, "word": "b"})
        async with connection.begin_nested() as part:
            await connection.execute(ROW, {"id": 3, "word": "a"})
            await part.rollback()
        await connection.execute(ROW, {"id": 4, "word": "a"})
    async with engine.connect() as connection:
        numbers = (await connection.execute(text("SELECT id FROM things ORDER BY id"))).scalars().all()

    assert numbers == [1, 2, 4]


@pytest.mark.parametrize("rows_before", [1, 2])
async def test_after_a_failure_that_undid_everything_nobody_goes_on_and_nothing_is_committed(
    engine: AsyncEngine, rows_before: int
) -> None:
    undoing = text("INSERT OR ROLLBACK INTO things VALUES (1, 'b')")

    async with engine.execution_options(**IMMEDIATE).connect() as connection:
        for number in range(1, rows_before + 1):
            await connection.execute(ROW, {"id": number, "word": "a"})
        with pytest.raises(IntegrityError, match="UNIQUE"):
            await connection.execute(undoing)
        with pytest.raises(DatabaseError, match="undone the whole transaction"):
            await connection.execute(ROW, {"id": 9, "word": "c"})
        with pytest.raises(DatabaseError, match="undone the whole transaction"):
            await connection.commit()
        await connection.rollback()
        await connection.execute(ROW, {"id": 10, "word": "d"})
        await connection.commit()
        numbers = (await connection.execute(text("SELECT id FROM things"))).scalars().all()

    assert numbers == [10]


async def test_rows_that_went_in_at_once_are_undone_with_the_rest(engine: AsyncEngine) -> None:
    connection = await engine.execution_options(**IMMEDIATE).connect()
    await connection.begin()
    for number in range(4):
        await connection.execute(ROW, {"id": number, "word": "a"})
    await connection.rollback()
    count = await connection.scalar(text("SELECT count(*) FROM things"))
    await connection.close()

    assert count == 0


async def test_while_the_thread_is_still_busy_with_what_was_cut_off_nothing_goes_in_beside_it(
    engine: AsyncEngine,
) -> None:
    entered, leave = threading.Event(), threading.Event()
    beside: list[str] = []

    def slow() -> int:
        entered.set()
        leave.wait()
        beside.append("slow")
        return 2

    async with engine.execution_options(**IMMEDIATE).begin() as connection:
        await driver_of(connection).create_function("slow", 0, slow)
        await connection.execute(ROW, {"id": 1, "word": "a"})
        cut = asyncio.create_task(adapter_of(connection).turn(lambda driver: driver.execute("SELECT slow()")))
        await eventually(entered.is_set)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        row = asyncio.create_task(connection.execute(ROW, {"id": 3, "word": "a"}))
        row.add_done_callback(lambda _: beside.append("row"))
        await asyncio.sleep(0)
        leave.set()
        await row

    assert beside[:1] == ["slow"]
