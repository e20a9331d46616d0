"""SQLite with one turn of the driver's thread for each statement, where SQLAlchemy's adapter takes three or four.

A turn goes to the thread and back: two wake-ups, and the wait for the interpreter at both ends. That is most of what a
small statement costs. The adapter takes one turn each for a cursor, the statement, its rows and the end of the cursor;
here the thread does all of it at once. The begin of a transaction goes with its first statement, what `before_commit`
was given goes with the commit, and a rollback after a commit takes no turn.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_ss_cursor,
)
from sqlalchemy.util import await_only

__all__ = ["TurnConnection", "connect"]


class _TurnCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor whose SQLite cursor lives for one turn, in the thread alone: nothing of it is freed elsewhere."""

    __slots__ = ()
    _awaitable_cursor_close = False

    def _make_new_cursor(self, connection: Any) -> Any:
        return _outcome()

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        await self._run(_executed, operation, () if parameters is None else parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        await self._run(_executed_many, operation, seq_of_parameters)

    async def _run(self, work: Callable[..., tuple[Any, list[Any]]], operation: Any, parameters: Any) -> None:
        connection: Any = self._adapt_connection
        async with connection._execute_mutex:  # noqa: SLF001 - the adapter is extended here
            self._cursor, rows = await connection.turn(work, operation, parameters)
            self._rows = deque(rows)


class _StreamCursor(AsyncAdapt_aiosqlite_ss_cursor):
    """A stream's cursor lives as long as it is read; here only the transaction begins in time."""

    __slots__ = ()

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        connection: Any = self._adapt_connection
        await connection.turn(_nothing)
        return await super()._execute_async(operation, parameters)


class TurnConnection(AsyncAdapt_aiosqlite_connection):
    """A connection of SQLAlchemy's adapter; streams have their own cursors, which fetch as they go."""

    __slots__ = ("_begin", "_is_clean", "_last")
    _cursor_cls = _TurnCursor
    _ss_cursor_cls = _StreamCursor

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        # How the transaction that SQLAlchemy has begun is still to begin.
        self._begin: str | None = None
        self._is_clean = True
        self._last: list[Callable[[sqlite3.Connection], None]] = []

    def begin_with(self, statement: str) -> None:
        """Begin a transaction in the turn of its first statement."""
        self._begin = statement

    async def turn(self, work: Callable[..., Any], *given: Any) -> Any:
        """Run `work(connection, *given)` in the driver's thread, in the transaction that was to begin.

        Raises:
            sqlite3.Error: as `work` does, or because the transaction cannot begin.
        """
        begin, self._begin = self._begin, None
        # Before it starts: one that is cut off is carried out all the same, and must be undone.
        self._is_clean = False
        try:
            return await _in_one_turn(self._connection, _begun, begin, work, given)
        except sqlite3.Error:
            if not self._connection.in_transaction:
                # Whoever goes on all the same is not to write outside of a transaction.
                self._begin = begin
            raise

    def before_commit(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Have something done in the turn of the next commit; a rollback forgets it."""
        self._last.append(work)

    def commit(self) -> None:
        """Do what was kept for the end, and commit."""
        last, self._last = self._last, []
        if last or not self._is_clean:
            try:
                await_only(self.turn(_committed, last))
            except Exception as error:  # noqa: BLE001 - SQLAlchemy's own way to say what the driver said
                self._handle_exception(error)
        self._begin, self._is_clean = None, True

    def rollback(self) -> None:
        """Undo what is open. After a commit, or before the first statement, nothing is: then no turn is taken."""
        self._begin, self._last = None, []
        if not self._is_clean:
            super().rollback()
            self._is_clean = True


def connect(dialect: Any, _record: object, arguments: Any, options: Any) -> TurnConnection:
    """Open a connection; a listener of SQLAlchemy's `do_connect`."""
    adapted = dialect.loaded_dbapi.connect(*arguments, **options)
    return TurnConnection(dialect.loaded_dbapi, adapted.driver_connection)


async def _in_one_turn(driver: Any, work: Callable[..., Any], *given: Any) -> Any:
    """Run `work(connection, *given)` in the thread of an aiosqlite connection, which has no public way to do so."""
    return await driver._execute(work, driver._conn, *given)  # noqa: SLF001


def _outcome(cursor: sqlite3.Cursor | None = None) -> Any:
    return SimpleNamespace(
        description=None if cursor is None else cursor.description,
        rowcount=-1 if cursor is None else cursor.rowcount,
        lastrowid=None if cursor is None else cursor.lastrowid,
        arraysize=1,
        close=_closed,
    )


def _closed() -> None:
    """Nothing is open any more: the cursor ended with its turn."""


def _nothing(_connection: sqlite3.Connection) -> None:
    """Do nothing but begin."""


def _begun(connection: sqlite3.Connection, begin: str | None, work: Callable[..., Any], given: Sequence[Any]) -> Any:
    if begin is not None:
        connection.execute(begin)
    return work(connection, *given)


def _executed(connection: sqlite3.Connection, operation: str, parameters: Any) -> tuple[Any, list[Any]]:
    cursor = connection.execute(operation, parameters)
    rows = cursor.fetchall() if cursor.description else []
    return _outcome(cursor), rows


def _executed_many(connection: sqlite3.Connection, operation: str, parameters: Any) -> tuple[Any, list[Any]]:
    return _outcome(connection.executemany(operation, parameters)), []


def _committed(connection: sqlite3.Connection, last: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
    try:
        for work in last:
            work(connection)
        connection.commit()
    except BaseException:
        # SQLAlchemy asks for no rollback after a commit that failed, and SQLite leaves the transaction open.
        connection.rollback()
        raise
