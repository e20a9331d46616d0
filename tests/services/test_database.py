"""Opening databases: what the services rely on, on SQLite and PostgreSQL."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, Table, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from messaging import ConfigurationError
from services.database import create_tables, insert_new, open_database, open_store

metadata = MetaData()
things = Table("things", metadata, Column("id", Integer, primary_key=True), Column("word", Integer))
Index("things_by_word", things.c.word)


async def test_replicas_may_make_the_tables_at_once(database_url: str) -> None:
    async def replica() -> None:
        async with open_database(database_url) as engine:
            await create_tables(engine, metadata)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(replica())


async def test_replicas_may_open_their_store_at_once_and_find_all_tables(database_url: str) -> None:
    async def replica() -> None:
        async with open_store(database_url, metadata):
            pass

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(replica())

    async with open_database(database_url) as engine, engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert {"things", "messaging_inbox", "messaging_outbox", "messaging_store_version"} <= set(names)


async def test_making_the_tables_again_keeps_their_rows(database_url: str) -> None:
    async with open_database(database_url) as engine:
        await create_tables(engine, metadata)
        async with AsyncSession(engine) as session, session.begin():
            await insert_new(session, things, {"id": 1, "word": 1})

        await create_tables(engine, metadata)

        async with engine.connect() as connection:
            assert (await connection.execute(select(func.count()).select_from(things))).scalar_one() == 1


async def test_of_concurrent_inserts_of_one_key_exactly_one_is_new(database_url: str) -> None:
    async with open_database(database_url) as engine:
        await create_tables(engine, metadata)

        async def insert(word: int) -> bool:
            async with AsyncSession(engine) as session, session.begin():
                return await insert_new(session, things, {"id": 1, "word": word})

        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*(insert(word) for word in range(20)))

    assert sorted(outcomes) == [False] * 19 + [True]


async def test_writers_of_two_processes_wait_for_one_another(database_url: str) -> None:
    async with open_database(database_url) as one, open_database(database_url) as other:
        await create_tables(one, metadata)

        async def insert(number: int) -> bool:
            async with AsyncSession(one if number % 2 else other) as session, session.begin():
                return await insert_new(session, things, {"id": number, "word": number})

        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*(insert(number) for number in range(100)))

    assert all(outcomes)


async def test_a_sqlite_file_survives_a_power_cut_and_lets_readers_pass_writers(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'x.db'}") as engine, engine.connect() as connection:
        journal = (await connection.execute(text("PRAGMA journal_mode"))).scalar_one()
        synchronous = (await connection.execute(text("PRAGMA synchronous"))).scalar_one()

    assert (journal, synchronous) == ("wal", 2)


@pytest.mark.parametrize(
    ("url", "told"),
    [("mysql://u:secret@h/d", "'mysql'"), ("no url with secret", "cannot be read"), ("", "cannot be read")],
)
async def test_a_url_of_no_use_is_told_without_its_password(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        async with open_database(url):
            pass

    assert "secret" not in str(caught.value)


async def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="check the folder"):
        async with open_database(f"sqlite:///{tmp_path / 'missing' / 'x.db'}"):
            pass
