"""What SQLite and PostgreSQL do differently: the clock, the start of a writing transaction, the insert that yields."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import ColumnElement, Connection, Table, event, func, literal_column, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.util import await_only

from messaging.errors import ConfigurationError
from messaging.stores.base import StoreUnavailableError
from messaging.stores.sql.capability import has_short_ways
from messaging.stores.sql.schema import metadata
from messaging.stores.sql.turns import BEGIN_WRITING, TurnConnection, connect

__all__ = ["Database", "bound_waits", "is_undone", "lent", "mapped", "take_back"]

_IMMEDIATE: Final = "messaging_immediate"
_BUSY_TIMEOUT_MS: Final = 30_000
# The driver waits for ever: a frozen server, or a link that swallows everything, would hold each handler that long.
_CONNECT_TIMEOUT_S: Final = 10.0
_STATEMENT_TIMEOUT_S: Final = 30.0
# Any number will do, as long as every replica that makes the tables takes the same.
_TABLES_LOCK: Final = 7_301_456


class Database:
    """An engine, and the few things that depend on its kind.

    Args:
        engine: SQLite (aiosqlite) or PostgreSQL (asyncpg).

    Raises:
        ConfigurationError: another kind of database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        if engine.dialect.name not in ("sqlite", "postgresql"):
            raise ConfigurationError(f"the store works on SQLite and PostgreSQL, not on {engine.dialect.name!r}")
        self.engine = engine
        # Its transactions take the write lock at their start, so that they never fail half-way.
        self.writer = engine.execution_options(**{_IMMEDIATE: True})
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer; here the writers of one process queue fairly instead of spinning on a locked file.
        self._writer = asyncio.Lock()
        if self.is_sqlite and not event.contains(engine.sync_engine, "begin", _begin_sqlite):
            if has_short_ways():
                event.listen(engine.sync_engine, "do_connect", connect)
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        if not event.contains(engine.sync_engine, "commit", _keep_open):
            event.listen(engine.sync_engine, "commit", _keep_open)
        if not self.is_sqlite and not event.contains(engine.sync_engine, "do_connect", bound_waits):
            event.listen(engine.sync_engine, "do_connect", bound_waits)

    def now_ms(self) -> ColumnElement[int]:
        """Return the database's clock as an expression, Unix milliseconds."""
        if self.is_sqlite:
            return literal_column("CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")
        return literal_column("CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)")

    def larger(self, first: ColumnElement[int], second: ColumnElement[int]) -> ColumnElement[int]:
        """Return the larger of two expressions."""
        return func.max(first, second) if self.is_sqlite else func.greatest(first, second)

    def insert(self, table: Table) -> Any:
        """Return an insert that can yield to a row that exists."""
        return postgresql.insert(table) if not self.is_sqlite else sqlite_dialect.insert(table)

    async def acquire_writer(self) -> None:
        """Take this process's turn to write; PostgreSQL needs none."""
        if self.is_sqlite:
            await self._writer.acquire()

    def release_writer(self) -> None:
        """Let the next one write."""
        if self.is_sqlite:
            self._writer.release()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Run a short transaction of the library's own.

        Raises:
            StoreUnavailableError: the database cannot be reached or does not answer.
        """
        await self.acquire_writer()
        try:
            with mapped(only_ours=True):
                async with self.writer.begin() as connection:
                    yield connection
        finally:
            self.release_writer()

    @asynccontextmanager
    async def changing_tables(self) -> AsyncIterator[AsyncConnection]:
        """Run a transaction that makes or changes tables, one replica after the other; see `writing`."""
        async with self.writing() as connection:
            if not self.is_sqlite:
                # IF NOT EXISTS alone still fails when two sessions make the same table at once.
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
            yield connection

    async def create_tables(self) -> None:
        """Make the tables that are missing; several replicas may do so at once."""
        async with self.changing_tables() as connection:
            for table in metadata.sorted_tables:
                await connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))


class mapped:  # noqa: N801 - reads as a word: `with mapped():`
    """Turn the trouble of a database that is not there into `StoreUnavailableError`.

    Args:
        only_ours: Whether nothing but the library's own statements runs inside. Then no message is to blame for any
            error, such as one login too many, a server that still starts, or tables that nobody made.
    """

    def __init__(self, *, only_ours: bool = False) -> None:
        self._gone = (*_GONE, DBAPIError, sqlite3.Error) if only_ours else _GONE

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Map what means that the database cannot be reached."""
        if isinstance(error, self._gone) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            raise StoreUnavailableError(
                f"the database does not answer ({_name_of(error)}); is it running, is its URL right, and did "
                "`create_tables` or the migrations run?"
            ) from error


def lent(connection: AsyncConnection) -> AsyncConnection:
    """Return a connection to be used by a handler, who may not commit: the inbox row says that all is done."""
    _LENT.add(connection.sync_connection)
    return connection


def take_back(connection: AsyncConnection) -> None:
    """Let a connection that was lent be committed."""
    _LENT.discard(connection.sync_connection)


def _keep_open(connection: Connection) -> None:
    if connection in _LENT:
        # SQLAlchemy asks for no rollback after a commit that failed, not even when the connection returns to its pool.
        connection.connection.rollback()
        raise ConfigurationError(
            "a handler cannot commit: its inbox row would say that it is done, and what it sends would stay behind; "
            "return instead, the library commits then"
        )


_LENT: Final[WeakSet[Any]] = WeakSet()


def is_undone(connection: AsyncConnection) -> bool:
    """Tell whether SQLite has rolled a transaction back at an error, which SQLAlchemy does not notice."""
    if connection.dialect.name != "sqlite":
        return False
    pooled: Any = connection.sync_connection
    adapter = pooled.connection.dbapi_connection
    if isinstance(adapter, TurnConnection):
        return adapter.is_undone
    return not adapter.driver_connection.in_transaction


# Names that cannot be resolved and connections that fail are `OSError`, straight from the driver.
# A file that stays locked is told by the driver's own class where the transaction begins.
_GONE: Final = (OperationalError, InterfaceError, PoolTimeoutError, OSError, sqlite3.OperationalError)


def _name_of(error: BaseException) -> str:
    """Return the class that the driver raised: the words beside it may hold values."""
    driver = error.orig if isinstance(error, DBAPIError) else None
    return type((driver and driver.__cause__) or driver or error).__name__


def bound_waits(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
    """Bound how long a PostgreSQL that says nothing is waited for, unless the application has decided that."""
    options.setdefault("timeout", _CONNECT_TIMEOUT_S)
    options.setdefault("command_timeout", _STATEMENT_TIMEOUT_S)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and by itself; `_begin_sqlite` says when and how.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    if isinstance(connection, TurnConnection):
        # Databases in memory have another mode, and some file systems know no shared memory.
        connection.is_write_ahead = cursor.fetchone() == ("wal",)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    begin = BEGIN_WRITING if connection.get_execution_options().get(_IMMEDIATE) else "BEGIN"
    adapter = connection.connection.dbapi_connection
    if isinstance(adapter, TurnConnection):
        adapter.begin_with(begin)
    else:
        # Opened before this engine was the store's, or there are no short ways.
        await_only(connection.connection.driver_connection.execute(begin))
