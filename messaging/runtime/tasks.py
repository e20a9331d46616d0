"""`Tasks`: the background tasks of one owner, which it drains or cancels.

A `TaskGroup` cancels all its children when the body around it fails, but a failing body is just when running handlers
must be drained instead of cut off. This module is therefore the one place of the runtime that calls `create_task`.
"""

import asyncio
from collections.abc import Coroutine

__all__ = ["Tasks"]


class Tasks:
    """Owns tasks until they end. None of them outlives `cancel()`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, object, None], *, name: str) -> None:
        """Start a task; its failure is reported to the event loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self, *, timeout_s: float) -> bool:
        """Wait until all have ended; returns whether they did in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return not self._tasks

    async def cancel(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

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
