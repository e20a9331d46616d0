"""`Tasks`: the background tasks of one owner, which it drains or cancels.

A `TaskGroup` cancels all its children when the body around it fails, but a failing body is just when running handlers
must be drained instead of cut off. This module is therefore the one place of the runtime that calls `create_task`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final

import structlog

__all__ = ["Tasks"]

# Long enough to roll back and to give a message back; a service that stops waits no longer for a handler that refuses.
_LAST_WORDS_S: Final = 3.0

log = structlog.get_logger()


class Tasks:
    """Owns tasks until they end. None outlives `cancel()` but one that does not let itself be cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, object, None], *, name: str) -> None:
        """Start a task; its failure is reported to the event loop's exception handler.

        Args:
            work: What it does.
            name: First word: who owns it, which logs may show; the rest may be a stranger's.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self, *, timeout_s: float) -> bool:
        """Wait until all have ended; returns whether they did in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return not self._tasks

    async def cancel(self, *, timeout_s: float = _LAST_WORDS_S) -> None:
        """Cancel what still runs and wait for it, but not for ever: code that swallows its cancellation is logged."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=timeout_s)
        if left:
            owners = sorted({task.get_name().partition(" ")[0] for task in left})
            log.error("task.abandoned", owners=owners, count=len(left))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {
                    "message": f"task {task.get_name()} failed",
                    "exception": error,
                    "task": task,
                }
            )
