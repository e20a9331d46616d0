"""`Schedules`: messages of one service that wait in its store, and the loop that sends them at their time.

By the store's clock, never before the time. What is due is sealed and moved to the outbox in one transaction; from
there the relay takes it. The loop sleeps until the next row is due, at most a second, because another process may have
written an earlier one.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from messaging.core.schedule import Cancellation, Draft
from messaging.errors import PublishNotConfirmedError
from messaging.runtime.publisher import Publisher
from messaging.stores.base import Outgoing, Schedule, Scheduled, StoreUnavailableError

__all__ = ["Schedules", "scheduled"]

BATCH_ROWS: Final = 200
_POLL_S: Final = 1.0

log = structlog.get_logger()


def scheduled(draft: Draft, due_ms: int) -> Scheduled:
    """Return a draft as what a store keeps until its time, Unix milliseconds."""
    return Scheduled(
        message_id=draft.envelope.id, message_type=draft.envelope.type, deliver_at_ms=due_ms, draft=draft.pack()
    )


class Schedules:
    """What waits for one service; the `Later` of a service that has a store.

    Args:
        schedule: The rows.
        service: Its name.
        publisher: Seals what is due.
        on_released: Called when something was moved to the outbox.
        clock: Stands in for the store's clock, for tests that have one of their own; Unix milliseconds.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        service: str,
        publisher: Publisher,
        on_released: Callable[[], None],
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._schedule = schedule
        self._service = service
        self._publisher = publisher
        self._on_released = on_released
        self._clock = clock
        self._wanted = asyncio.Event()

    async def put(self, draft: Draft, *, due_ms: int, timeout_s: float) -> None:
        """Keep a message; see `Later`."""
        envelope = draft.envelope
        try:
            async with asyncio.timeout(timeout_s):
                await self._schedule.add(scheduled(draft, due_ms))
        except (TimeoutError, StoreUnavailableError) as error:
            raise PublishNotConfirmedError(
                f"{envelope.type} may not be on the schedule: {_why(error, timeout_s, 'context.send')}; repeat it with "
                f"message_id={envelope.id}",
                message_id=envelope.id,
            ) from error
        self._wanted.set()

    async def cancel(self, message_id: UUID, *, timeout_s: float) -> Cancellation:
        """Take a message back that waits; see `Later`.

        Raises:
            StoreUnavailableError: the store does not answer in time; repeat it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._schedule.cancel(message_id)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"whether message {message_id} is cancelled is not known: {_why(error, timeout_s, 'context.cancel')}; "
                "repeat it"
            ) from error

    async def run(self) -> None:
        """Release what is due, for ever."""
        while True:
            rest_s = await self._look()
            if rest_s > 0:
                await self._rest(rest_s)

    async def next_due_s(self) -> float | None:
        """Return in how many seconds the next message is due, negative when it is late; None when none waits."""
        return await self._schedule.next_due_s(now_ms=self._now_ms())

    async def release_due(self) -> int:
        """Send what is due now, one batch of it; returns how many rows were looked at."""
        released = await self._schedule.release(self._sealed, limit=BATCH_ROWS, now_ms=self._now_ms())
        if released.sent:
            log.debug("schedule.released", count=len(released.sent))
            self._on_released()
        for message_id, reason in released.failed:
            log.warning("schedule.postponed", message_id=str(message_id), reason=reason)
        return len(released.sent) + len(released.failed)

    async def _look(self) -> float:
        """Release what is due; returns how long nothing will be, seconds."""
        self._wanted.clear()
        try:
            due_s = await self.next_due_s()
            if due_s is None or due_s > 0:
                return _POLL_S if due_s is None else min(due_s, _POLL_S)
            # What is due and not released is held by somebody, for a moment.
            return 0.0 if await self.release_due() else _POLL_S
        except StoreUnavailableError as error:
            log.warning("schedule.unavailable", reason=str(error))
        except Exception as error:  # noqa: BLE001 - if it ended, nothing would be sent at its time any more
            log.warning("schedule.unavailable", reason=f"a defect: {type(error).__name__}")
        return _POLL_S

    async def _sealed(self, packed: bytes) -> Outgoing | None:
        return await self._publisher.sealed(Draft.unpack(packed, sender=self._service))

    def _now_ms(self) -> int | None:
        return None if self._clock is None else self._clock()

    async def _rest(self, rest_s: float) -> None:
        try:
            async with asyncio.timeout(rest_s):
                await self._wanted.wait()
        except TimeoutError:
            return


def _why(error: Exception, timeout_s: float, inside: str) -> str:
    if isinstance(error, TimeoutError):
        return f"the store did not answer within {timeout_s:g} s (inside a handler use {inside}, in its transaction)"
    return str(error)
