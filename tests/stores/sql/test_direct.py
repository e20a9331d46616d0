"""A settled insert at the bare driver writes what SQLAlchemy would have written."""

import sqlite3
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from messaging.stores.sql.database import Database
from messaging.stores.sql.direct import Direct
from tests.support.waiting import eventually

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("body", LargeBinary),
    Column("is_kept", Boolean),
    Column("word", Text, nullable=True),
    Column("size", Integer),
)
NAMES = ("id", "body", "is_kept", "word", "least")


def thing(number: int) -> dict[str, object]:
    return {"id": UUID(int=number), "body": bytes([number]), "is_kept": number % 2 == 0, "word": None, "least": number}


def unless_there(engine: AsyncEngine) -> Insert:
    statement: Insert = Database(engine).insert(THINGS).values(size=bindparam("least", type_=Integer) + 10)
    return statement.on_conflict_do_nothing().returning(THINGS.c.size)  # type: ignore[attr-defined,no-any-return]


def driver_of(connection: AsyncConnection) -> Any:
    pooled: Any = connection.sync_connection
    return pooled.connection.driver_connection


@pytest.fixture(autouse=True)
async def things(engine: AsyncEngine) -> None:
    Database(engine)
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)


async def test_rows_are_those_that_sqlalchemy_writes_and_repetitions_are_none(engine: AsyncEngine) -> None:
    statement = unless_there(engine)
    direct = Direct(engine, statement, NAMES)
    async with engine.begin() as connection:
        one = await direct.run(connection, [thing(1)])
        again = await direct.run(connection, [thing(1)])
        many = await direct.run(connection, [thing(number) for number in range(1, 5)])
        direct_rows = (await connection.execute(select(THINGS))).all()
        await connection.execute(THINGS.delete())
        await connection.execute(statement, [thing(number) for number in range(1, 5)])
        rows = (await connection.execute(select(THINGS))).all()

    assert [size for (size,) in one] == [11]
    assert again == []
    assert [size for (size,) in many] == [12, 13, 14]
    assert direct_rows == rows


async def test_it_belongs_to_the_transaction(engine: AsyncEngine) -> None:
    direct = Direct(engine, unless_there(engine), NAMES)

    async with engine.connect() as connection:
        await connection.begin()
        await direct.run(connection, [thing(1)])
        await connection.rollback()
        left = (await connection.execute(select(THINGS))).all()

    assert left == []


async def test_what_is_kept_for_the_end_is_there_after_the_commit_and_tells_what_it_returns(
    engine: AsyncEngine,
) -> None:
    direct = Direct(engine, unless_there(engine), NAMES)

    async with engine.begin() as connection:
        found = await direct.before_commit(connection, [thing(1), thing(2)])
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(THINGS))

    assert [size for (size,) in found] == [11, 12]
    assert count == 2


async def test_what_is_kept_for_the_end_is_forgotten_by_a_rollback(engine: AsyncEngine) -> None:
    direct = Direct(engine, unless_there(engine), NAMES)

    async with engine.connect() as connection:
        await connection.begin()
        await direct.before_commit(connection, [thing(1)])
        await connection.rollback()
        await connection.begin()
        await connection.commit()
        count = await connection.scalar(select(func.count()).select_from(THINGS))

    assert count == 0


async def test_what_cannot_be_written_is_the_drivers_word_and_undoes_the_transaction(engine: AsyncEngine) -> None:
    direct = Direct(engine, insert(THINGS).values(size=bindparam("least")).returning(THINGS.c.size), NAMES)

    async with engine.connect() as connection:
        await connection.begin()
        await direct.run(connection, [thing(1)])
        with pytest.raises((DBAPIError, sqlite3.Error)) as failed:
            await direct.run(connection, [thing(1)])
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(THINGS))

    assert "UNIQUE" in str(failed.value).upper()
    assert count == 0


@pytest.mark.postgres
async def test_a_connection_that_was_cut_is_told_and_leaves_its_pool(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url)
    direct = Direct(engine, unless_there(engine), NAMES)
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)

    async with engine.connect() as connection, engine.connect() as other:
        number = await connection.scalar(text("SELECT pg_backend_pid()"))
        await direct.run(connection, [thing(1)])
        await other.execute(text(f"SELECT pg_terminate_backend({number})"))
        await eventually(driver_of(connection).is_closed)
        with pytest.raises(DBAPIError) as failed:
            await direct.run(connection, [thing(2)])
    async with engine.begin() as connection:
        written = await direct.run(connection, [thing(1)])
    await engine.dispose()

    assert failed.value.connection_invalidated
    assert len(written) == 1


async def test_a_connection_that_was_opened_before_the_engine_was_the_stores_will_do(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'early.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)
    direct = Direct(engine, unless_there(engine), NAMES)

    async with engine.begin() as connection:
        await direct.run(connection, [thing(1)])
        await direct.before_commit(connection, [thing(2)])
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(THINGS))
    await engine.dispose()

    assert count == 2
