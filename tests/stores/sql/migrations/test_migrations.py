from collections.abc import AsyncIterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.stores.sql import metadata
from messaging.stores.sql.migrations import VERSION_TABLE, config_for, migrate
from tests.support.databases import database_url, postgres_server, postgres_url

__all__ = ["database_url", "postgres_server", "postgres_url"]


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
    assert not {"messaging_inbox", "messaging_outbox", "messaging_trust"} & set(names)


async def test_tables_of_the_first_version_get_the_trust_record(engine: AsyncEngine) -> None:
    await migrate(engine, to="0001")

    await migrate(engine)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
