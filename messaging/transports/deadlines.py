"""`Deadlines`: the deadlines of many waits on one timer of the event loop, for those that hardly ever expire.

A timer for each message costs 1.3 µs to set and to cancel, `asyncio.timeout` 3.8 µs; an entry here 0.6 µs. Entries that
end within the same hundredth of a second share a slot, and only the earliest slot has a timer. An entry expires up to
one slot late and never early.

Example:
    deadline = deadlines.set(10.0, partial(self._expire, pending))
    ...
    deadline.lift()
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from messaging.errors import ConfigurationError

__all__ = ["Deadline", "Deadlines", "TaskDeadline", "finite_s"]

SLOTS_PER_S: Final = 100
_RESOLUTION_S: Final = 1e-6
_SWEEP_MIN: Final = 1_024


def finite_s(timeout_s: float | None, default_s: float) -> float:
    """Return how long a caller waits: what was asked for, or else the default; seconds.

    Raises:
        ConfigurationError: It is infinite or no number: no slot stands for that.
    """
    if timeout_s is None:
        return default_s
    if not math.isfinite(timeout_s):
        raise ConfigurationError(f"{timeout_s:g} seconds is no time that ends: use a finite number of seconds")
    return timeout_s


class Deadline:
    """One entry."""

    __slots__ = ("_expire", "_slot")

    def __init__(self, slot: "dict[Deadline, None]", expire: Callable[[], None]) -> None:
        self._slot = slot
        self._expire = expire

    def lift(self) -> None:
        """Take it back. Twice is once; after it expired nothing happens."""
        slot = self._slot
        slot.pop(self, None)
        if not slot:
            # A dict that was emptied entry by entry keeps its table.
            slot.clear()

    def expire(self) -> None:
        """Do what is to be done when it is over."""
        self._expire()


class Deadlines:
    """The deadlines of one owner, on the event loop that was running at the first of them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: dict[int, dict[Deadline, None]] = {}
        self._order: list[int] = []
        self._sweep_at = _SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def set(self, timeout_s: float, expire: Callable[[], None]) -> Deadline:
        """Call `expire` after so many seconds, in one of the next turns of the event loop when they are 0 or less.

        It must not raise.
        """
        slot = self.slot(timeout_s)
        deadline = Deadline(slot, expire)
        slot[deadline] = None
        return deadline

    def slot(self, timeout_s: float) -> "dict[Deadline, None]":
        """Return where an entry of so many seconds belongs; for entries that come by themselves."""
        loop = self._loop or self._bound()
        number = int((loop.time() + timeout_s) * SLOTS_PER_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            if len(self._order) > self._sweep_at:
                self._sweep()
            slot = self._slots[number] = {}
            heapq.heappush(self._order, number)
            if self._timer is None or number < self._timed:
                self._arm(loop, number)
        return slot

    def of_task(self, timeout_s: float) -> "TaskDeadline":
        """Return what cancels the task that enters it when it is still inside after so many seconds."""
        return TaskDeadline(self, timeout_s)

    def clear(self) -> None:
        """Lift them all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._slots.clear()
        self._order.clear()

    def _bound(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _arm(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timed = number
        self._timer = loop.call_at(number / SLOTS_PER_S, self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        # Timers may fire early by the resolution of the clock.
        now = int((loop.time() + _RESOLUTION_S) * SLOTS_PER_S)
        due: list[dict[Deadline, None]] = []
        # Whatever lies before the first slot that still holds something was lifted.
        while self._order and (self._order[0] <= now or not self._slots[self._order[0]]):
            due.append(self._slots.pop(heapq.heappop(self._order)))
        if self._order:
            self._arm(loop, self._order[0])
        for slot in due:
            while slot:
                # One that expires may lift another one.
                slot.popitem()[0].expire()

    def _sweep(self) -> None:
        """Forget slots that are empty: long deadlines that are lifted soon would else leave one per slot."""
        self._slots = {number: slot for number, slot in self._slots.items() if slot}
        self._order = sorted(self._slots)
        self._sweep_at = max(_SWEEP_MIN, 2 * len(self._order))


class TaskDeadline(Deadline):
    """What `asyncio.timeout` does, without a timer of its own.

    Example:
        with deadlines.of_task(60.0) as deadline:
            await handle(message)

    Attributes:
        is_over: Whether it cut the wait short.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "_timeout_s", "is_over")

    _task: asyncio.Task[Any]

    def __init__(self, deadlines: Deadlines, timeout_s: float) -> None:
        self._deadlines = deadlines
        self._timeout_s = timeout_s
        self._cancelling = 0
        self.is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline of a task is entered by a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._slot = self._deadlines.slot(self._timeout_s)
        self._slot[self] = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.lift()
        # Our own cancellation is taken back; one from elsewhere that came as well goes on.
        if self.is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cut the wait short."""
        self.is_over = True
        self._task.cancel()
