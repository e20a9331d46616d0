"""`Context`: the message being handled, and the ways to send more because of it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from messaging.core.envelope import Envelope
from messaging.core.message import Command, Event, Request
from messaging.core.schedule import Cancellation
from messaging.errors import ConfigurationError
from messaging.stores.base import Unit

__all__ = ["Context", "Outlet"]

R = TypeVar("R")
T = TypeVar("T")


class Outlet(Protocol):
    """What a context sends through: the publisher of its service."""

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
        """Send a command."""

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
        """Publish an event."""

    async def request(
        self,
        request: Request[R],
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
    ) -> R:
        """Ask and wait for the answer."""

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Take back what waits for its time."""


class Context:
    """The message being handled, and the ways to send more because of it.

    What is sent here carries the correlation id on and names the handled message as its cause.

    Attributes:
        envelope: The message with who, when and why; its payload is the encoded one.
        attempt: Which run this is, from 1.
        replayed_by: The operator, when this is a replay.
        replay_reason: The operator's reason.
    """

    __slots__ = ("_outlet", "_resources", "_unit", "attempt", "envelope", "replay_reason", "replayed_by")

    def __init__(
        self,
        envelope: Envelope,
        outlet: Outlet,
        *,
        attempt: int = 1,
        resources: Sequence[object] = (),
        unit: Unit | None = None,
        replayed_by: str | None = None,
        replay_reason: str | None = None,
    ) -> None:
        self.envelope = envelope
        self.attempt = attempt
        self.replayed_by = replayed_by
        self.replay_reason = replay_reason
        self._outlet = outlet
        self._resources = resources
        self._unit = unit

    @property
    def message_id(self) -> UUID:
        """Id of the handled message: the same on every redelivery, so a natural key for idempotence."""
        return self.envelope.id

    @property
    def message_name(self) -> str:
        """Name of the handled message."""
        return self.envelope.name

    @property
    def sender(self) -> str:
        """The service or operator that signed the message."""
        return self.envelope.sender

    @property
    def correlation_id(self) -> UUID:
        """Shared by everything that follows from one first act."""
        return self.envelope.correlation_id or self.envelope.id

    @property
    def issued_at(self) -> datetime:
        """When the message was sealed, by the sender's clock."""
        return datetime.fromtimestamp(self.envelope.issued_at_ms / 1000, tz=UTC)

    @property
    def headers(self) -> dict[str, Any]:
        """The private headers, which travelled encrypted."""
        return dict(self.envelope.headers)

    def resource(self, kind: type[T]) -> T:
        """Return what the service's lifespan yielded, or what a durable store's transaction gives, by its type.

        Raises:
            ConfigurationError: there is nothing of this type.
        """
        if self._unit is not None:
            found = self._unit.find(kind)
            if isinstance(found, kind):
                return found
        for resource in self._resources:
            if isinstance(resource, kind):
                return resource
        raise ConfigurationError(
            f"no resource of type {kind.__name__}: yield one from the lifespan, Service(…, lifespan=open_resources)"
        )

    async def send(
        self,
        command: Command,
        *,
        message_id: UUID | None = None,
        timeout: float | None = None,
        expires_in: float | None = None,
        deliver_at: datetime | None = None,
        key: str | int | UUID | bytes | None = None,
    ) -> UUID:
        """Send a command because of the handled message; see `Service.send`."""
        return await self._outlet.send(
            command,
            cause=self.envelope,
            message_id=message_id,
            timeout_s=timeout,
            expires_in_s=expires_in,
            deliver_at=deliver_at,
            key=key,
        )

    async def publish(
        self,
        event: Event,
        *,
        message_id: UUID | None = None,
        timeout: float | None = None,
        expires_in: float | None = None,
        deliver_at: datetime | None = None,
    ) -> UUID:
        """Publish an event because of the handled message; see `Service.publish`."""
        return await self._outlet.publish(
            event,
            cause=self.envelope,
            message_id=message_id,
            timeout_s=timeout,
            expires_in_s=expires_in,
            deliver_at=deliver_at,
        )

    async def request(self, request: Request[R], *, message_id: UUID | None = None, timeout: float | None = None) -> R:
        """Ask because of the handled message; see `Service.request`."""
        return await self._outlet.request(request, cause=self.envelope, message_id=message_id, timeout_s=timeout)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Take back a message that waits for its time, in the handler's transaction; see `Service.cancel`."""
        return await self._outlet.cancel(message_id)
