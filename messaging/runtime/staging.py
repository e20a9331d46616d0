"""Where a handler's messages go: at once to the broker, or into the handler's transaction, and out once it commits."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from messaging.core.envelope import Envelope
from messaging.core.message import Command, Event, Request
from messaging.core.schedule import Cancellation
from messaging.runtime.context import Outlet
from messaging.runtime.publisher import Publisher
from messaging.runtime.schedules import scheduled
from messaging.stores.base import Unit

__all__ = ["Outlets", "StagingOutlet"]

R = TypeVar("R")


class StagingOutlet:
    """The way out of a handler that runs in a transaction; see `Outlet` for the methods.

    Requests are not staged: their answer is wanted now.
    """

    def __init__(self, publisher: Publisher, unit: Unit) -> None:
        self._publisher = publisher
        self._unit = unit

    async def send(
        self,
        command: Command,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        key: object = None,
    ) -> UUID:
        """Stage a command. Its `timeout_s` does not apply: the relay tries until it is out."""
        return await self._out(command, cause, message_id, expires_in_s, deliver_at, key=key)

    async def publish(
        self,
        event: Event,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
    ) -> UUID:
        """Stage an event; see `send`."""
        return await self._out(event, cause, message_id, expires_in_s, deliver_at)

    async def request(
        self,
        request: Request[R],
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
    ) -> R:
        """Ask at once."""
        return await self._publisher.request(request, cause=cause, message_id=message_id, timeout_s=timeout_s)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Cancel in the handler's transaction."""
        return await self._unit.cancel(message_id)

    async def _out(
        self,
        message: Command | Event,
        cause: Envelope | None,
        message_id: UUID | None,
        expires_in_s: float | None,
        deliver_at: datetime | None,
        *,
        key: object = None,
    ) -> UUID:
        due_ms = self._publisher.due_ms(deliver_at)
        if due_ms is not None:
            draft = self._publisher.drafted(
                message, cause=cause, message_id=message_id, expires_in_s=expires_in_s, key=key
            )
            await self._unit.schedule(scheduled(draft, due_ms))
            return draft.envelope.id
        staged = await self._publisher.staged(
            message, cause=cause, message_id=message_id, expires_in_s=expires_in_s, key=key
        )
        if staged.sealing is not None:
            await self._unit.stage(staged.sealing)
        return staged.message_id


class Outlets:
    """The ways out that a service's handlers may get.

    Args:
        publisher: The direct one.
        on_commit: Called after each handler whose work was committed.
    """

    def __init__(self, publisher: Publisher, *, on_commit: Callable[[], None]) -> None:
        self._publisher = publisher
        self._on_commit = on_commit

    def of(self, unit: Unit | None) -> Outlet:
        """Return the way out of one run: through its transaction if it has one."""
        return self._publisher if unit is None else StagingOutlet(self._publisher, unit)

    def note_commit(self) -> None:
        """Say that a handler's work was committed."""
        self._on_commit()
