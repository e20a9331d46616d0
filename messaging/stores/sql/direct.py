"""`Direct`: a settled statement, run at the bare driver.

Through SQLAlchemy a small statement costs two to four times what it costs the driver. A statement whose text and
parameters are settled beforehand needs nothing of that: it is compiled once, with the conversions of its parameters.
Where the driver may not be reached (`capability`), the text goes through SQLAlchemy.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Delete, Insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from messaging.stores.sql.capability import has_short_ways
from messaging.stores.sql.turns import TurnConnection

__all__ = ["Direct", "Rows"]

Rows = Sequence[Mapping[str, Any]]


class Direct:
    """An insert or a delete as text.

    Args:
        engine: SQLite through aiosqlite, or PostgreSQL through asyncpg.
        statement: With what it returns; an insert with a value for every column that is not in `names`.
        names: Of the parameters that each row brings.
    """

    def __init__(self, engine: AsyncEngine, statement: Insert | Delete, names: Sequence[str]) -> None:
        compiled: Any = statement.compile(dialect=engine.dialect, column_keys=list(names))
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._text: str = compiled.string
        self._names: tuple[str, ...] = tuple(compiled.positiontup)
        self._constants = {name: value for name, value in compiled.params.items() if name not in names}
        self._converters: dict[str, Callable[[Any], Any] | None] = {
            name: bind.type.dialect_impl(engine.dialect).bind_processor(engine.dialect)
            for name, bind in compiled.binds.items()
        }

    async def run(self, connection: AsyncConnection, rows: Rows) -> list[tuple[Any, ...]]:
        """Run it for each row, in one turn or one round trip; returns what it returns.

        Args:
            connection: In a transaction.
            rows: The parameters.

        Raises:
            sqlite3.Error: as SQLite says it at the bare driver.
            DBAPIError: as PostgreSQL says it, or SQLAlchemy.
        """
        values = [self._values(row) for row in rows]
        adapter: Any = _adapter_of(connection)
        try:
            if isinstance(adapter, TurnConnection):
                return list(await adapter.turn(_ran, self._text, values))
            if self._is_sqlite or not has_short_ways():
                return await self._detoured(connection, values)
            return await self._fetched(adapter, values)
        except (OSError, DBAPIError, sqlite3.Error):
            raise
        except Exception as error:
            # Whatever it is, it is the driver's word.
            raise await _told(connection, adapter, error, self._text) from error

    async def before_commit(self, connection: AsyncConnection, rows: Rows) -> list[tuple[Any, ...]]:
        """Run it for each row at the end of the transaction; what is returned is filled in by its commit."""
        adapter: Any = _adapter_of(connection)
        if not isinstance(adapter, TurnConnection):
            return await self.run(connection, rows)
        values = [self._values(row) for row in rows]
        found: list[tuple[Any, ...]] = []
        adapter.before_commit(lambda driver: found.extend(_ran(driver, self._text, values)))
        return found

    async def _detoured(self, connection: AsyncConnection, values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for row in values:
            result = await connection.exec_driver_sql(self._text, row)
            found += [tuple(returned) for returned in result] if result.returns_rows else []
        return found

    async def _fetched(self, adapter: Any, values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        # What SQLAlchemy's adapter does before each statement: one at a time, in a transaction that begins late.
        async with adapter._execute_mutex:  # noqa: SLF001
            if adapter._transaction is None:  # noqa: SLF001
                await adapter._start_transaction()  # noqa: SLF001
            driver = adapter.driver_connection
            if len(values) == 1:
                return list(await driver.fetch(self._text, *values[0]))
            return list(await driver.fetchmany(self._text, values))

    def _values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(self._value(name, row) for name in self._names)

    def _value(self, name: str, row: Mapping[str, Any]) -> Any:
        value = row[name] if name in row else self._constants[name]
        convert = self._converters.get(name)
        return value if convert is None else convert(value)


def _adapter_of(connection: AsyncConnection) -> Any:
    pooled: Any = connection.sync_connection
    return pooled.connection.dbapi_connection


def _ran(connection: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for row in values:
        found += connection.execute(statement, row).fetchall()
    return found


async def _told(connection: AsyncConnection, adapter: Any, error: Exception, statement: str) -> DBAPIError:
    """Return what SQLAlchemy would raise; a connection that is gone leaves its pool."""
    is_gone = bool(getattr(adapter.driver_connection, "is_closed", bool)())
    if is_gone:
        await connection.invalidate(error)
    return DBAPIError(statement, None, error, connection_invalidated=is_gone)
