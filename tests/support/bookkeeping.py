"""A service that keeps books in order: each entry is a row, written in the handler's transaction.

Run by `messaging run tests.support.bookkeeping:books`; `BOOKS_DATABASE_URL` says where the rows are.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from messaging import Command, Context, RetryPolicy, Service
from messaging.stores.sql import SqlStore

__all__ = ["ENTRIES", "Enter", "books"]

PARTITIONS = 4
FLAKY_EVERY = 97
_metadata = MetaData()

# Numbered as they are committed: SQLite has one writer at a time.
ENTRIES = Table(
    "entries",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("account", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", Integer, nullable=False),
)


class Enter(Command, name="books.enter", key="account"):
    """Write one entry; some fail at first, after the row: it must be undone, and the followers must wait."""

    account: str
    number: int
    serial: int


@asynccontextmanager
async def open_store(_service: Service) -> AsyncIterator[SqlStore]:
    """Open the database and make its tables."""
    engine = create_async_engine(os.environ["BOOKS_DATABASE_URL"])
    store = SqlStore(engine)
    await store.create_tables()
    async with engine.begin() as connection:
        await connection.run_sync(_metadata.create_all)
    try:
        yield store
    finally:
        await engine.dispose()


books = Service(
    "books", lifespan=open_store, partitions=PARTITIONS, retry=RetryPolicy(immediate=0, delays_s=(0.5, 0.5, 1.0))
)


@books.on_command(Enter)
async def enter(command: Enter, context: Context) -> None:
    """Write one entry."""
    session = context.resource(AsyncSession)
    await session.execute(insert(ENTRIES).values(account=command.account, number=command.number, worker=os.getpid()))
    if command.serial % FLAKY_EVERY == 0 and context.attempt == 1:
        raise RuntimeError("not at the first try")
