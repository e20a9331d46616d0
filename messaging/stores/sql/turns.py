"""SQLite with one turn of the driver's thread for each statement, where SQLAlchemy's adapter takes three or four.

A turn goes to the thread and back: two wake-ups, and the wait for the interpreter at both ends. That is most of what a
small statement costs. The adapter takes one turn each for a cursor, the statement, its rows and the end of the cursor;
here the thread does all of it at once. The begin of a transaction goes with its first statement, what `before_commit`
was given goes with the commit, and a rollback after a commit takes no turn. Nor does a row that goes in quickly, once
the transaction has the writer's lock (`quick.py`).
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_ss_cursor,
)
from sqlalchemy.util import await_only

from messaging.stores.sql.quick import IN_A_ROW_MAX, Pace

__all__ = ["BEGIN_WRITING", "TurnConnection", "connect"]

BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
"""Begins a transaction with the writer's lock."""


class _TurnCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor whose SQLite cursor lives for one turn, in the thread alone: nothing of it is freed elsewhere."""

    __slots__ = ()
    _awaitable_cursor_close = False

    def _make_new_cursor(self, connection: Any) -> Any:
        return _outcome()

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        connection: Any = self._adapt_connection
        async with connection._execute_mutex:  # noqa: SLF001 - the adapter is extended here
            self._cursor, rows = await connection.executed(operation, () if parameters is None else parameters)
            self._rows = deque(rows)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        connection: Any = self._adapt_connection
        async with connection._execute_mutex:  # noqa: SLF001 - the adapter is extended here
            self._cursor, rows = await connection.turn(_executed_many, operation, seq_of_parameters)
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

    __slots__ = (
        "_at_once",
        "_begin",
        "_finished",
        "_has_lock",
        "_is_clean",
        "_last",
        "_may_skip",
        "_pace",
        "_started",
        "is_undone",
        "is_write_ahead",
    )
    _cursor_cls = _TurnCursor
    _ss_cursor_cls = _StreamCursor

    def __init__(self, dbapi: Any, connection: Any, *, may_skip: bool = False) -> None:
        super().__init__(dbapi, connection)
        # How the transaction that SQLAlchemy has begun is still to begin.
        self._begin: str | None = None
        self._is_clean = True
        self._last: list[Callable[[sqlite3.Connection], None]] = []
        # Whether SQLite and the driver let more than one thread use the connection.
        self._may_skip = may_skip
        # Whether SQLite has undone the transaction at an error: a full disk, `ON CONFLICT ROLLBACK`. Whoever caught
        # that error and goes on is not to write outside of a transaction.
        self.is_undone = False
        self.is_write_ahead = False
        self._pace = Pace()
        self._has_lock = False
        self._at_once = 0
        # Counted by the event loop and by the thread: as long as they differ, the thread has the connection.
        self._started = self._finished = 0

    def begin_with(self, statement: str) -> None:
        """Begin a transaction in the turn of its first statement."""
        self._begin, self.is_undone = statement, False

    async def turn(self, work: Callable[..., Any], *given: Any) -> Any:
        """Run `work(connection, *given)` in the driver's thread, in the transaction that was to begin.

        Raises:
            sqlite3.Error: as `work` does, or because the transaction cannot begin, or was undone.
        """
        begin, self._begin = self._begin, None
        # Before it starts: one that is cut off is carried out all the same, and must be undone.
        self._is_clean = False
        if begin is not None:
            self._has_lock = begin == BEGIN_WRITING
        self._at_once = 0
        self._started += 1
        try:
            return await _in_one_turn(self._connection, self._begun, begin, work, given)
        except sqlite3.Error:
            if begin is not None and not self._connection.in_transaction:
                # Whoever goes on all the same is not to write outside of a transaction.
                self.begin_with(begin)
            raise

    async def executed(self, operation: str, parameters: Any) -> Any:
        """Run a statement, at once if it is quick, else in a turn; returns the outcome and the rows.

        Raises:
            sqlite3.Error: as SQLite says it.
        """
        pace = self._pace
        if not pace.is_timed(operation):
            return await self.turn(_executed, operation, parameters)
        driver = self._connection
        if self._waits_for_nobody and driver.in_transaction and pace.is_quick(operation, parameters):
            self._at_once += 1
            try:
                return pace.timed(time.perf_counter, _executed, driver._conn, operation, parameters)  # noqa: SLF001
            except sqlite3.Error:
                self.is_undone = not driver.in_transaction
                raise
        return await self.turn(_timed, pace, operation, parameters)

    @property
    def _waits_for_nobody(self) -> bool:
        """Whether the transaction has the writer's lock, and the thread has nothing to do."""
        return (
            self._may_skip
            and self._begin is None
            and self._has_lock
            and self.is_write_ahead
            and self._started == self._finished
            and self._at_once < IN_A_ROW_MAX
        )

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
        self._begin, self._is_clean, self._has_lock = None, True, False

    def rollback(self) -> None:
        """Undo what is open. After a commit, or before the first statement, nothing is: then no turn is taken."""
        self._begin, self._last, self._has_lock = None, [], False
        if not self._is_clean:
            super().rollback()
            self._is_clean = True
        self.is_undone = False

    def _begun(
        self, connection: sqlite3.Connection, begin: str | None, work: Callable[..., Any], given: Sequence[Any]
    ) -> Any:
        is_open = False
        try:
            if begin is not None:
                connection.execute(begin)
            elif self.is_undone:
                raise sqlite3.DatabaseError(_UNDONE)
            is_open = connection.in_transaction
            return work(connection, *given)
        except sqlite3.Error:
            self.is_undone = self.is_undone or (is_open and not connection.in_transaction)
            raise
        finally:
            self._finished += 1


def connect(dialect: Any, _record: object, arguments: Any, options: Any) -> TurnConnection:
    """Open a connection; a listener of SQLAlchemy's `do_connect`."""
    # Two threads use it, never at the same time. An application that forbids that is heard.
    may_skip = sqlite3.threadsafety == _SERIALIZED and not options.setdefault("check_same_thread", False)
    adapted = dialect.loaded_dbapi.connect(*arguments, **options)
    return TurnConnection(dialect.loaded_dbapi, adapted.driver_connection, may_skip=may_skip)


_SERIALIZED: Final = 3
_UNDONE: Final = "after a statement that failed SQLite has undone the whole transaction; let that error through"


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


def _executed(connection: sqlite3.Connection, operation: str, parameters: Any) -> tuple[Any, list[Any]]:
    cursor = connection.execute(operation, parameters)
    rows = cursor.fetchall() if cursor.description else []
    return _outcome(cursor), rows


def _timed(connection: sqlite3.Connection, pace: Pace, operation: str, parameters: Any) -> tuple[Any, list[Any]]:
    return pace.timed(time.thread_time, _executed, connection, operation, parameters)


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
