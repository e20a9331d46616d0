from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.errors import ConfigurationError
from messaging.stores.base import StoreUnavailableError
from messaging.stores.sql import SqlStore, metadata
from messaging.stores.sql.migrations import VERSION_TABLE, config_for, migrate, rehearse, standing
from messaging.stores.sql.schema import OUTBOX
from tests.support.databases import database_url, postgres_server, postgres_url

__all__ = ["database_url", "postgres_server", "postgres_url"]


# Without the column that a later version adds.
ROW = {
    "service": "orders",
    "message_id": uuid4(),
    "message_type": "orders.place_order/1",
    "exchange": "messaging.commands",
    "routing_key": "orders.place_order.v1",
    "is_mandatory": True,
    "sealed": b"sealed",
    "created_at_ms": 0,
    "due_at_ms": 0,
}


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return list(compare_metadata(context, metadata))


async def test_migrations_lead_to_the_tables_that_the_code_expects(engine: AsyncEngine) -> None:
    await migrate(engine)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_second_run_changes_nothing(engine: AsyncEngine) -> None:
    await migrate(engine)

    await migrate(engine)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_downgrade_removes_the_tables(engine: AsyncEngine) -> None:
    await migrate(engine)

    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(config_for(sync), "base"))

    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert not {name for name in names if name.startswith("messaging_")} - {VERSION_TABLE}


async def test_tables_of_the_first_version_get_the_trust_record(engine: AsyncEngine) -> None:
    await migrate(engine, to="0001")

    await migrate(engine)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_there_is_one_newest_version() -> None:
    assert len(ScriptDirectory.from_config(config_for()).get_heads()) == 1


async def test_every_step_back_and_forth_leads_to_the_tables_of_its_version(engine: AsyncEngine) -> None:
    await migrate(engine)

    for _ in ScriptDirectory.from_config(config_for()).walk_revisions():
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: command.downgrade(config_for(sync), "-1"))
    await migrate(engine)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_rows_of_the_first_version_outlive_the_step_and_are_counted_on_without_end(engine: AsyncEngine) -> None:
    await migrate(engine, to="0001")
    async with engine.begin() as connection:
        await connection.execute(insert(OUTBOX).values(**ROW, attempts=32_767))

    await migrate(engine)

    [row] = await SqlStore(engine).outbox("orders").claim(limit=1, lease_s=60, owner="test")
    await SqlStore(engine).outbox("orders").postpone(row, delay_s=-1, reason="the broker is away")
    [again] = await SqlStore(engine).outbox("orders").claim(limit=1, lease_s=60, owner="test")
    assert (row.attempts, again.attempts) == (32_767, 32_768)


async def test_an_empty_database_has_no_version_and_every_step_before_it(engine: AsyncEngine) -> None:
    found = await standing(engine)

    assert found.current is None
    assert found.newest == found.pending[-1].version
    assert found.pending[0].title == "The inbox and the outbox."


async def test_the_steps_from_an_old_version_are_told_and_done_ones_are_not(engine: AsyncEngine) -> None:
    await migrate(engine, to="0002")

    before = await standing(engine)
    await migrate(engine)
    after = await standing(engine)

    assert [step.version for step in before.pending] == ["0003", "0004", "0005"]
    assert (before.current, after.current, after.pending) == ("0002", before.newest, ())


async def test_a_rehearsal_tells_what_changes_and_changes_nothing(engine: AsyncEngine) -> None:
    await migrate(engine, to="0002")
    async with engine.begin() as connection:
        await connection.execute(insert(OUTBOX).values(**ROW, attempts=1))

    statements = await rehearse(engine)

    after = await standing(engine)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert after.current == "0002"
    assert "messaging_schedule" not in names
    assert any("CREATE TABLE IF NOT EXISTS messaging_schedule" in statement for statement in statements)
    assert not any(statement.startswith(("SELECT", "PRAGMA")) for statement in statements)


async def test_what_was_rehearsed_is_what_a_migration_does(engine: AsyncEngine) -> None:
    await migrate(engine, to="0001")
    statements = await rehearse(engine)

    async with engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)

    assert (await standing(engine)).pending == ()
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("act", [standing, rehearse, migrate])
async def test_what_a_newer_program_has_migrated_is_left_alone(engine: AsyncEngine, act: Any) -> None:
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE messaging_store_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match=r"9999.*update this program"):
        await act(engine)


async def test_a_database_that_does_not_answer_is_local_trouble() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")

    with pytest.raises(StoreUnavailableError, match="does not answer"):
        await standing(engine)
