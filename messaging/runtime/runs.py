"""`Runs`: what arrives together is handled by one task, as long as nothing in it has to wait.

A task for each delivery costs about as much as its inbox. Here a task handles one after the other; only when something
suspends, the task stays with it alone, and the rest goes on in other tasks.

    put, put, put ──► waiting ──► a task: handle, handle, handle, end
                                              │ it suspends: the rest gets tasks of its own in the next turn of the loop

Rules:

1. What has suspended has its task to itself until it ends, so deadlines, cancellations and groups of tasks touch nobody
   else. Before that it may follow others in the same task, which ended without any wait.
2. Each begins with the context variables that there were when this object was made: a task in which one was changed is
   not used again, nor one that was asked to end, even if that was taken back.
3. What waits is begun in the order of its arrival.
4. A run has an end, so that the event loop reads and writes in between.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Final, Generic, TypeVar

from messaging.runtime.tasks import Tasks

__all__ = ["RUN_MAX", "Runs"]

RUN_MAX: Final = 32
"""How much one task handles in a turn of the event loop: meanwhile nothing is acknowledged and nothing read."""

_SPREAD_MAX: Final = 128
_ABSENT: Final = object()

T = TypeVar("T")


class Runs(Generic[T]):
    """Handles what is put, each once.

    Args:
        handle: What is done with each.
        name: Of the tasks; see `Tasks.spawn`.
        leave: Called with what had not begun when all is cancelled; it does not raise.
    """

    def __init__(
        self, handle: Callable[[T], Coroutine[object, object, None]], *, name: str, leave: Callable[[T], None]
    ) -> None:
        self._handle = handle
        self._name = name
        self._leave = leave
        self._context = copy_context()
        self._tasks = Tasks()
        self._waiting: deque[T] = deque()
        self._running = 0
        # Tasks that have not taken anything yet, and how many of them are made at once while something waits: many,
        # until something ends without a wait. What always waits, as replies do, begins in one turn, signed as one.
        self._starting = 0
        self._spread = _SPREAD_MAX
        # Counts turns of the event loop while somebody looks: whoever finds another number has suspended.
        self._turn = 0
        self._is_turning = False

    def __len__(self) -> int:
        return self._running + len(self._waiting)

    def put(self, item: T) -> None:
        """Handle this, too."""
        self._waiting.append(item)
        if self._starting < self._spread:
            self._begin()

    async def drain(self, *, timeout_s: float) -> bool:
        """Wait until all has been handled; returns whether it was in time."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while len(self):
            left_s = max(0.0, deadline_s - loop.time())
            await self._tasks.drain(timeout_s=left_s)
            if not left_s:
                break
            # What waits without a task gets one in the turn that is to come.
            await asyncio.sleep(0)
        return not len(self)

    async def cancel(self) -> None:
        """Leave what has not begun, and cancel what runs."""
        waiting = list(self._waiting)
        self._waiting.clear()
        for item in waiting:
            self._leave(item)
        await self._tasks.cancel()

    def _begin(self) -> None:
        self._starting += 1
        # Whoever is running now may have changed variables of its own.
        self._context.copy().run(self._tasks.spawn, self._run(), name=self._name)

    async def _run(self) -> None:
        self._starting -= 1
        task, turn, waiting = asyncio.current_task(), self._turn, self._waiting
        for _ in range(RUN_MAX):
            if not waiting:
                return
            item = waiting.popleft()
            if not waiting:
                await self._one(item)
                # What arrived while it was handled has a task already.
                return
            self._note_turns()
            await self._one(item)
            if self._turn != turn:
                return
            if _is_cancelled(task) or not _is_same(copy_context(), self._context):
                break
            self._spread = 1
        if waiting:
            self._begin()

    async def _one(self, item: T) -> None:
        self._running += 1
        try:
            await self._handle(item)
        finally:
            self._running -= 1

    def _note_turns(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn += 1
        self._is_turning = False
        if self._waiting and not self._starting:
            # Something suspended after all.
            self._spread = min(2 * self._spread, _SPREAD_MAX)
            for _ in range(min(self._spread, len(self._waiting))):
                self._begin()


def _is_cancelled(task: asyncio.Task[None] | None) -> bool:
    """Tell whether the next wait of a task would end in a cancellation, even one that was taken back.

    `uncancel` lowers the count and no more: what was asked for without a wait since is still thrown by the next one.
    """
    return task is not None and (task.cancelling() > 0 or getattr(task, "_must_cancel", False))


def _is_same(context: Context, other: Context) -> bool:
    """Tell whether all variables hold the very same objects: what is equal need not be the same."""
    if len(context) != len(other):
        return False
    for variable, held in other.items():  # noqa: SIM110 - a generator costs more than the comparison
        if context.get(variable, _ABSENT) is not held:
            return False
    return True
