"""A settled insert at SQLite's driver writes what SQLAlchemy would have written."""

from pathlib import Path
from uuid import UUID

from sqlalchemy import Boolean, Column, Integer, LargeBinary, MetaData, Table, Text, Uuid, bindparam, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.stores.sql.direct import Direct

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


async def test_rows_are_those_that_sqlalchemy_writes_and_repetitions_are_none(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    statement = sqlite.insert(THINGS).values(size=bindparam("least", type_=Integer) + 10).on_conflict_do_nothing()
    direct = Direct(engine, statement, NAMES)
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)
        one = await direct.run(connection, [thing(1)])
        again = await direct.run(connection, [thing(1)])
        many = await direct.run(connection, [thing(number) for number in range(1, 5)])
        direct_rows = (await connection.execute(select(THINGS))).all()
        await connection.execute(THINGS.delete())
        await connection.execute(statement, [thing(number) for number in range(1, 5)])
        rows = (await connection.execute(select(THINGS))).all()
    await engine.dispose()

    assert (one, again, many) == (1, 0, 3)
    assert direct_rows == rows


async def test_it_belongs_to_the_transaction(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    direct = Direct(engine, insert(THINGS).values(size=1), NAMES[:-1])
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)

    async with engine.connect() as connection:
        await connection.execute(select(THINGS))
        await direct.run(connection, [thing(1)])
        await connection.rollback()
        left = (await connection.execute(select(THINGS))).all()
    await engine.dispose()

    assert left == []
