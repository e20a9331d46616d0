"""`Direct`: a settled insert, run at SQLite's own driver.

Each call into the driver is a turn of its thread, there and back, and that is most of what a small statement costs.
SQLAlchemy takes three turns for one: a cursor, the statement, the end of the cursor. A statement whose text and
parameters are settled beforehand takes one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["Direct"]


class Direct:
    """An insert as text.

    Args:
        engine: SQLite through aiosqlite.
        insert: With a value for every column that is not in `names`; it returns nothing.
        names: Of the parameters that each row brings.
    """

    def __init__(self, engine: AsyncEngine, insert: Insert, names: Sequence[str]) -> None:
        compiled: Any = insert.compile(dialect=engine.dialect, column_keys=list(names))
        self._text: str = compiled.string
        self._names: tuple[str, ...] = tuple(compiled.positiontup)
        self._constants = {name: value for name, value in compiled.params.items() if name not in names}
        self._converters: dict[str, Callable[[Any], Any] | None] = {
            name: bind.type.dialect_impl(engine.dialect).bind_processor(engine.dialect)
            for name, bind in compiled.binds.items()
        }

    async def run(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows in one turn; returns how many were new.

        Raises:
            sqlite3.Error: as the driver says it.
        """
        values = [self._values(row) for row in rows]
        pooled: Any = connection.sync_connection
        driver = pooled.connection.driver_connection
        if len(values) == 1:
            cursor = await driver.execute(self._text, values[0])
        else:
            cursor = await driver.executemany(self._text, values)
        return int(cursor.rowcount)

    def _values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(self._value(name, row) for name in self._names)

    def _value(self, name: str, row: Mapping[str, Any]) -> Any:
        value = row[name] if name in row else self._constants[name]
        convert = self._converters.get(name)
        return value if convert is None else convert(value)
