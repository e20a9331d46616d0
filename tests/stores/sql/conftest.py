"""Each test of the durable store runs on a SQLite file and on a real PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.stores.sql import SqlStore
from tests.support.databases import database_url, postgres_server, postgres_url

__all__ = ["database_url", "engine", "postgres_server", "postgres_url", "store"]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def store(engine: AsyncEngine) -> SqlStore:
    store = SqlStore(engine)
    await store.create_tables()
    return store
