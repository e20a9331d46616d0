"""`Pace`: which statements of an SQLite connection are so quick that they are run where they are asked for.

A turn of the driver's thread costs twenty times what SQLite needs to insert a row, and splits what the event loop does
together into small parts. So a row goes in on the event loop, if nothing can make that wait:

1. It is an insert of given values, one row, at most 64 KiB; no function, no query.
2. Its transaction is open and has the writer's lock, in write-ahead mode: nobody else is waited for (`turns.py`).
3. It was quick whenever it was timed lately. Triggers, indexes that do not fit into memory and slow disks show in
   that: what was slow twice in a row goes to the thread until it has been quick there a hundred times.
4. After so many of them the next one takes a turn: a handler with thousands does not keep the event loop to itself.
"""

import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

__all__ = ["IN_A_ROW_MAX", "Pace"]

IN_A_ROW_MAX: Final = 32
"""How many statements may run on the event loop before one takes a turn of the thread."""

# A pause that nobody notices. What is slower is not worth its turn.
_QUICK_S: Final = 0.005
_VALUES_MAX_BYTES: Final = 64 * 1024
# Statements are few, unless an application writes values into their text.
_KNOWN_MAX: Final = 256
_ONE_ROW: Final = re.compile(r"INSERT INTO [^()]+ \([^()]*\) VALUES \([?, ]+\)(?: RETURNING [^()]+)?")

# How often it must be quick in the thread before it leaves it: at first, and after it was slow.
_UNPROVEN: Final = 1
_SLOW: Final = 100
_PROVEN: Final = 0
_SLOW_ONCE: Final = -1
_NEVER: Final = 1_000_000

T = TypeVar("T")


class Pace:
    """What one connection knows of its statements."""

    def __init__(self) -> None:
        self._standings: dict[str, int] = {}

    def is_timed(self, operation: str) -> bool:
        """Tell whether a statement is one that may prove quick."""
        standing = self._standings.get(operation)
        if standing is None:
            if len(self._standings) >= _KNOWN_MAX:
                self._standings.clear()
            standing = self._standings[operation] = _UNPROVEN if _ONE_ROW.fullmatch(operation) else _NEVER
        return standing != _NEVER

    def is_quick(self, operation: str, values: Any) -> bool:
        """Tell whether a statement may be run on the event loop with these values."""
        return self._standings.get(operation, _NEVER) <= _PROVEN and _is_small(values)

    def timed(
        self,
        clock: Callable[[], float],
        work: Callable[[sqlite3.Connection, str, Any], T],
        connection: sqlite3.Connection,
        operation: str,
        values: Any,
    ) -> T:
        """Run a statement and note how long it took.

        Args:
            clock: Seconds; in the thread those of its own CPU time, for it waits for the interpreter, too.
            work: Runs it.
            connection: Of SQLite.
            operation: The statement, one that `is_timed`.
            values: Its parameters.
        """
        began_s = clock()
        try:
            return work(connection, operation, values)
        finally:
            self._note(operation, is_quick=clock() - began_s <= _QUICK_S)

    def _note(self, operation: str, *, is_quick: bool) -> None:
        standing = self._standings.get(operation, _UNPROVEN)
        if is_quick:
            self._standings[operation] = max(standing - 1, _PROVEN)
        else:
            # Once may have been the machine.
            self._standings[operation] = _SLOW_ONCE if standing == _PROVEN else _SLOW


def _is_small(values: Sequence[Any]) -> bool:
    size = 0
    for each in values:
        if isinstance(each, str | bytes):
            size += len(each)
    return size <= _VALUES_MAX_BYTES
