"""Opens the database of a service and makes its tables: a SQLite file by default, PostgreSQL by URL.

What a handler confirmed must outlive a power cut, because the message that asked for it is gone: SQLite writes ahead
(WAL) and waits for the disk at each commit. Writers wait for one another instead of failing.

`open_store` adds the inbox and the outbox of `messaging` to a service's own tables, so that one transaction covers all
three.

Example:
    async with open_store("sqlite+aiosqlite:///users.db", metadata) as store:
        yield store
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, Final

from sqlalchemy import MetaData, Table, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from messaging import ConfigurationError
from messaging.stores.sql import SqlStore
from messaging.stores.sql.migrations import migrate

__all__ = ["create_tables", "insert_new", "open_database", "open_store"]

_BUSY_TIMEOUT_MS: Final = 30_000
_LOCKED_PAUSE_S: Final = 0.02
# Per replica: PostgreSQL gives 100 to all of them together unless told otherwise. Handlers beyond wait their turn.
_CONNECTIONS: Final = 16
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
# Any number will do, as long as every replica that makes tables in one database takes the same.
_TABLES_LOCK: Final = 7_301_455


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[AsyncEngine]:
    """Open a database for the time of the block.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/name`; a driver may stand after the `+`.

    Raises:
        ConfigurationError: the URL names no database that the services know.
    """
    engine = _engine(url)
    try:
        if engine.dialect.name == "sqlite":
            await _write_ahead(engine.url.database or ":memory:")
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def open_store(url: str, metadata: MetaData) -> AsyncIterator[SqlStore]:
    """Open a service's database with inbox and outbox for the time of the block, all tables made or up to date.

    Raises:
        ConfigurationError: the URL names no database that the services know.
    """
    async with open_database(url) as engine:
        store = SqlStore(engine)
        await migrate(engine)
        await create_tables(engine, metadata)
        yield store


async def create_tables(engine: AsyncEngine, metadata: MetaData) -> None:
    """Make the tables and indexes that are missing; several replicas may do so at once."""
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # IF NOT EXISTS alone still fails when two sessions make the same table at once.
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
        for table in metadata.sorted_tables:
            await connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                await connection.execute(CreateIndex(index, if_not_exists=True))


async def insert_new(session: AsyncSession, table: Table, row: dict[str, Any]) -> bool:
    """Insert a row unless its primary key is taken; return whether it is new.

    It takes the write lock (SQLite) or waits for a concurrent insert of the same key (PostgreSQL), so what the
    transaction reads afterwards is settled.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite_dialect.insert
    inserted = await session.execute(insert(table).values(row).on_conflict_do_nothing().returning(*table.primary_key))
    return inserted.first() is not None


def _engine(url: str) -> AsyncEngine:
    try:
        address = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "the database URL cannot be read; write sqlite+aiosqlite:///users.db or "
            "postgresql+asyncpg://user:password@host/name"
        ) from None
    driver = _DRIVERS.get(address.get_backend_name())
    if driver is None:
        raise ConfigurationError(f"databases of type {address.get_backend_name()!r}: use SQLite or PostgreSQL")
    if driver == "postgresql+asyncpg":
        return create_async_engine(
            address.set(drivername=driver), pool_pre_ping=True, pool_size=_CONNECTIONS, max_overflow=0
        )
    engine = create_async_engine(address.set(drivername=driver))
    # At debug level it logs every statement with its values, and those came in messages.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


async def _write_ahead(database: str) -> None:
    """Switch a SQLite file to write-ahead logging, which the file remembers.

    The switch fails at once while another process does the same: no timeout of SQLite's applies.
    """
    async with asyncio.timeout(_BUSY_TIMEOUT_MS / 1000):
        while True:
            try:
                await asyncio.to_thread(_switch, database)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise ConfigurationError(
                        f"the database {database!r} cannot be opened: {error}; check the folder"
                    ) from error
                await asyncio.sleep(_LOCKED_PAUSE_S)
            else:
                return


def _switch(database: str) -> None:
    with closing(sqlite3.connect(database, uri=database.startswith("file:"))) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
