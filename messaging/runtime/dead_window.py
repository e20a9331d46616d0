"""`Window`: a few acts at a time, no faster than asked, and none of them cut off half-way.

An operator who types Ctrl-C ends a pass, but not the replays that are on their way: each of them is either confirmed
and taken out of the dead letters, or still there.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from messaging.runtime.tasks import Tasks

__all__ = ["Window"]

WINDOW: Final = 32


class Window:
    """Runs acts side by side.

    Args:
        size: At most so many at once.
        rate_per_s: At most so many begin per second, evenly spread; None means as fast as it goes.
    """

    def __init__(self, *, size: int = WINDOW, rate_per_s: float | None = None) -> None:
        self._room = asyncio.Semaphore(size)
        self._tasks = Tasks()
        self._interval_s = 0.0 if rate_per_s is None else 1 / rate_per_s
        self._next_s = 0.0

    @classmethod
    @asynccontextmanager
    async def opened(cls, *, rate_per_s: float | None, patience_s: float) -> "AsyncIterator[Window]":
        """Run acts inside; afterwards wait until the last has ended, at most `patience_s` seconds."""
        window = cls(rate_per_s=rate_per_s)
        try:
            yield window
        finally:
            await window.drain(patience_s)

    async def begin(self, act: Callable[[], Awaitable[None]]) -> None:
        """Return once the act has begun, in its turn."""
        await self._room.acquire()
        try:
            await self._turn()
        except BaseException:
            self._room.release()
            raise
        self._tasks.spawn(self._run(act), name="replay")

    async def drain(self, patience_s: float) -> None:
        """Wait until all have ended, but not for ever; an impatient operator's second Ctrl-C cuts them off."""
        try:
            await self._tasks.drain(timeout_s=patience_s)
        finally:
            await self._tasks.cancel()

    async def _turn(self) -> None:
        if not self._interval_s:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._next_s = max(self._next_s, now_s)
        delay_s, self._next_s = self._next_s - now_s, self._next_s + self._interval_s
        await asyncio.sleep(delay_s)

    async def _run(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        finally:
            self._room.release()
