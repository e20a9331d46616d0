"""`Sending`: the ways to send that a service gives its users; each stands on the publisher."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from messaging.core.message import Command, Event, Request, slot_among
from messaging.core.schedule import Cancellation
from messaging.errors import TransportError
from messaging.runtime.publisher import Publisher

__all__ = ["Sending"]

R = TypeVar("R")


class Sending(ABC):
    """What a service can say. See `messaging.service.Service`, which is one."""

    @property
    @abstractmethod
    def publisher(self) -> Publisher:
        """The way out while it runs.

        Raises:
            ConfigurationError: it does not run.
        """

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
        """Send a command to the service that owns it; returns its id once the broker has it on disk.

        Args:
            command: What to do.
            message_id: A UUID of your own, so that a repetition is the same message.
            timeout: Seconds until the broker must have confirmed.
            expires_in: Seconds after which the command is worthless and is buried instead of handled; they begin when
                it is sent.
            deliver_at: When to send it, with a time zone: never before; what has passed is now. The command waits in
                the store, and this call returns once it is there; `cancel` takes it back.
            key: What orders it, instead of the key that its class declares.

        Raises:
            UnroutableError: nobody handles this command.
            PublishNotConfirmedError: not confirmed in time; carries the id to repeat it with.
            PolicyError: the trust bundle does not allow it; names the line to add.
            ConfigurationError: `deliver_at` has no time zone, or the message has no place to wait.
        """
        return await self.publisher.send(
            command, message_id=message_id, timeout_s=timeout, expires_in_s=expires_in, deliver_at=deliver_at, key=key
        )

    async def send_many(self, commands: Iterable[Command], *, timeout: float | None = None) -> list[UUID]:
        """Send commands together, confirms in flight side by side; returns their ids in order.

        Commands of one key go out in their order, each once the one before it is confirmed.

        Raises:
            ExceptionGroup: some failed, and of each key all after the first that did; the others were sent.
        """
        results = await _sent(self.publisher, list(commands), timeout_s=timeout)
        errors = [result for result in results if isinstance(result, Exception)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(results)} commands were not sent", errors)
        return [result for result in results if isinstance(result, UUID)]

    async def publish(
        self,
        event: Event,
        *,
        message_id: UUID | None = None,
        timeout: float | None = None,
        expires_in: float | None = None,
        deliver_at: datetime | None = None,
    ) -> UUID:
        """Publish an event of this service to all who subscribe; nobody listening is no error. See `send`."""
        return await self.publisher.publish(
            event, message_id=message_id, timeout_s=timeout, expires_in_s=expires_in, deliver_at=deliver_at
        )

    async def request(self, request: Request[R], *, timeout: float | None = None, message_id: UUID | None = None) -> R:
        """Ask the service that owns the request and return its answer.

        Args:
            request: The question.
            timeout: Seconds; default: `request_timeout_s` of the settings.
            message_id: A UUID of your own: a repetition under it is answered from the first run.

        Raises:
            UnroutableError: nobody answers such requests.
            RequestTimeoutError: no answer by the deadline; the outcome is unknown.
            RemoteError: the handler failed; or one of the failures that the request declares with `raises=`.
        """
        return await self.publisher.request(request, timeout_s=timeout, message_id=message_id)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Take back a message that waits for its time; inside a handler use `context.cancel`.

        Args:
            message_id: What `send` or `publish` returned.

        Returns:
            `cancelled` when it is not sent, `sent` when it is too late, `unknown` when this service has no such message
            on its schedule.

        Raises:
            ConfigurationError: the service has no store.
            StoreUnavailableError: the store does not answer; repeat it.
        """
        return await self.publisher.cancel(message_id)


async def _sent(
    publisher: Publisher, commands: list[Command], *, timeout_s: float | None
) -> list[UUID | BaseException]:
    """Return what became of each command, in their order."""
    slots = [slot_among(command) for command in commands]
    if not any(slot is not None for slot in slots):
        return await asyncio.gather(
            *(publisher.send(command, timeout_s=timeout_s) for command in commands), return_exceptions=True
        )
    results: list[UUID | BaseException | None] = [None] * len(commands)
    lanes: dict[int, list[int]] = {}
    for number, slot in enumerate(slots):
        # Below 0: a lane of its own.
        lanes.setdefault(-1 - number if slot is None else slot, []).append(number)

    async def send(numbers: list[int]) -> None:
        for number in numbers:
            results[number] = await publisher.send(commands[number], timeout_s=timeout_s)

    outcomes = await asyncio.gather(*(send(numbers) for numbers in lanes.values()), return_exceptions=True)
    for numbers, outcome in zip(lanes.values(), outcomes, strict=True):
        if outcome is not None:
            results[next(number for number in numbers if results[number] is None)] = outcome
    return [TransportError(_UNSENT) if result is None else result for result in results]


_UNSENT: Final = "not sent: a command before it with the same key failed; send it after that one"
