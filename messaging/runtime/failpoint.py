"""`Failpoint`: kills its own process at a chosen step, so that tests can show what a crash there costs.

`MESSAGING_FAILPOINT=after_commit` dies at that step the first time, `after_commit:7` the seventh. The steps are the
places between two durable acts. Those of a service are next to a call of the inbox or the outbox, so only those are
wrapped; those of an operator's replay ask by themselves. Unset, as it always is outside tests, nothing is wrapped.
"""

import os
import signal
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, cast

from messaging.errors import ConfigurationError
from messaging.stores.base import Claimed, HandingOver, Inbox, Outbox, Reservation, Taker

__all__ = ["Failpoint", "Step"]


class Step(StrEnum):
    """Where to die."""

    BEFORE_COMMIT = "before_commit"  # the handler has run, nothing is kept
    AFTER_COMMIT = "after_commit"  # everything is kept; neither answered nor acknowledged
    AFTER_CLAIM = "after_claim"  # the relay holds rows that it has not published
    AFTER_RELAY = "after_relay"  # the relay has published, the rows are still there
    AFTER_DEAD_LETTER = "after_dead_letter"  # buried, not yet recorded as failed
    AFTER_MARK = "after_mark"  # recorded as failed, not acknowledged
    AFTER_RUNG = "after_rung"  # a copy waits for its next try, the delivery is not acknowledged
    BEFORE_REPLAY = "before_replay"  # a dead letter is in hand, its replay is not published
    AFTER_REPLAY = "after_replay"  # the replay is published, the dead letter still there
    AFTER_LETTER = "after_letter"  # the dead letter is acknowledged, which the broker may not have read
    BEFORE_RETURN = "before_return"  # the pass is over, what it did not take is not yet given back


def _die() -> None:
    # No handler, no flush, no farewell: as the kernel ends a process that took too much memory.
    os.kill(os.getpid(), signal.SIGKILL)


class Failpoint:
    """Counts how often its step is reached and dies at the wanted time.

    Args:
        step: Where.
        at: The how manieth time, from 1.
        die: What ends the process.
    """

    def __init__(self, step: Step, *, at: int = 1, die: Callable[[], None] = _die) -> None:
        self._step = step
        self._left = at
        self._die = die

    @classmethod
    def parse(cls, text: str | None) -> "Failpoint | None":
        """Read `step` or `step:times`; None stays None.

        Raises:
            ConfigurationError: there is no such step.
        """
        if text is None:
            return None
        step, _, times = text.partition(":")
        if step not in _STEPS or (times and not times.isdecimal()):
            raise ConfigurationError(
                f"MESSAGING_FAILPOINT={text!r}: write one of {', '.join(_STEPS)}; with :7 behind it, the seventh time"
            )
        return cls(Step(step), at=int(times or 1))

    def reach(self, step: Step) -> None:
        """Die if this is the step, and the time."""
        if step is not self._step:
            return
        self._left -= 1
        if self._left == 0:
            self._die()

    def inbox(self, inbox: Inbox) -> Inbox:
        """Return the inbox with its steps."""
        return cast("Inbox", _FailingInbox(inbox, self))

    def outbox(self, outbox: Outbox) -> Outbox:
        """Return the outbox with its steps."""
        wrapped = _FailingHandover if isinstance(outbox, HandingOver) else _FailingOutbox
        return cast("Outbox", wrapped(outbox, self))


_STEPS: Final = tuple(step.value for step in Step)


class _FailingInbox:
    """Everything else is the inbox's own."""

    def __init__(self, inbox: Inbox, failpoint: Failpoint) -> None:
        self._inbox = inbox
        self._failpoint = failpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inbox, name)

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        self._failpoint.reach(Step.BEFORE_COMMIT)
        completed = await self._inbox.complete(reservation, reply=reply)
        self._failpoint.reach(Step.AFTER_COMMIT)
        return completed

    async def fail(self, reservation: Reservation) -> bool:
        self._failpoint.reach(Step.AFTER_DEAD_LETTER)
        failed = await self._inbox.fail(reservation)
        self._failpoint.reach(Step.AFTER_MARK)
        return failed

    async def release(self, reservation: Reservation) -> bool:
        # The first act after the rung has confirmed; what is given back without a copy is released too, more rarely.
        self._failpoint.reach(Step.AFTER_RUNG)
        return await self._inbox.release(reservation)


class _FailingOutbox:
    """Everything else is the outbox's own."""

    def __init__(self, outbox: Outbox, failpoint: Failpoint) -> None:
        self._outbox: Any = outbox
        self._failpoint = failpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[Claimed]:
        rows: Sequence[Claimed] = await self._outbox.claim(limit=limit, lease_s=lease_s, owner=owner)
        if rows:
            self._failpoint.reach(Step.AFTER_CLAIM)
        return rows

    async def delete(self, rows: Sequence[Claimed]) -> None:
        self._failpoint.reach(Step.AFTER_RELAY)
        await self._outbox.delete(rows)


class _FailingHandover(_FailingOutbox):
    """One that hands over."""

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        self._outbox.hand_over(_FailingTaker(taker, self._failpoint), owner=owner, lease_s=lease_s)

    def keep(self, owner: str) -> None:
        self._outbox.keep(owner)


class _FailingTaker:
    """What is handed over is held like what was claimed."""

    def __init__(self, taker: Taker, failpoint: Failpoint) -> None:
        self._taker = taker
        self._failpoint = failpoint

    @property
    def has_room(self) -> bool:
        return self._taker.has_room

    def take(self, rows: Sequence[Claimed], *, leaves_more: bool) -> None:
        if rows:
            self._failpoint.reach(Step.AFTER_CLAIM)
        self._taker.take(rows, leaves_more=leaves_more)
