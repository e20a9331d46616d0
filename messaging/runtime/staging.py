"""Where a handler's messages go: at once to the broker, or into the handler's transaction, and out once it commits."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from messaging.core.envelope import Envelope
from messaging.core.message import Command, Event, Request
from messaging.runtime.context import Outlet
from messaging.runtime.publisher import Publisher
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
    ) -> UUID:
        """Stage a command. Its `timeout_s` does not apply: the relay tries until it is out."""
        staged = await self._publisher.staged(command, cause=cause, message_id=message_id, expires_in_s=expires_in_s)
        if staged.outgoing is not None:
            await self._unit.stage(staged.outgoing)
        return staged.message_id

    async def publish(
        self,
        event: Event,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
    ) -> UUID:
        """Stage an event; see `send`."""
        staged = await self._publisher.staged(event, cause=cause, message_id=message_id, expires_in_s=expires_in_s)
        if staged.outgoing is not None:
            await self._unit.stage(staged.outgoing)
        return staged.message_id

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
