"""`Delays`: where the commands of a sender without a store wait for their time: sealed, in delay levels at the broker.

The levels belong to the service that the command is for (`core.delays`) and are made once, by `messaging topology apply
--delays`; on the embedded broker, where nobody else could, by whoever needs them first. The bytes are sealed now, so
their life covers the delay as well. What is under way cannot be found there, so it cannot be taken back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from uuid import UUID

import structlog

from messaging.core.ambient import Ambient
from messaging.core.delays import LEVELS, delay_end, delay_key, delay_topology
from messaging.core.envelope import Envelope, Kind
from messaging.core.schedule import Cancellation, Draft
from messaging.core.sealed import Route
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, PublishNotConfirmedError, TopologyConflictError, UnroutableError
from messaging.stores.base import Outgoing
from messaging.transports.base import Transport

__all__ = ["Delays"]

# Four times what the ladder of the default policy takes.
LIFE_MIN_MS: Final = 3_600_000

log = structlog.get_logger()


class Seal(Protocol):
    """Seals a draft; see `Publisher.sealed`."""

    def __call__(self, draft: Draft, *, life_ms: int | None = None) -> Awaitable[Outgoing | None]:
        """Return the sealed message."""


class Delays:
    """The `Later` of a sender without a store.

    Args:
        seal: From draft to sealed message.
        transport: The way out.
        names: The namespace.
        ambient: Gives the time.
        lifetime_s: How long messages live that were given no life of their own, seconds.
        longest_life_ms: Returns how long the trust bundle lets any live, milliseconds.
        makes_levels: Whether levels that are missing are made.
    """

    def __init__(
        self,
        *,
        seal: Seal,
        transport: Transport,
        names: Names,
        ambient: Ambient,
        lifetime_s: float,
        longest_life_ms: Callable[[], int],
        makes_levels: bool,
    ) -> None:
        self._seal = seal
        self._transport = transport
        self._names = names
        self._ambient = ambient
        self._lifetime_ms = int(lifetime_s * 1000)
        self._longest_life_ms = longest_life_ms
        self._makes_levels = makes_levels
        self._found: set[str] = set()

    async def put(self, draft: Draft, *, due_ms: int, timeout_s: float) -> None:
        """Send a command through the levels of its service; see `Later`.

        Raises:
            TopologyConflictError: that service has no levels; names the remedy.
            UnroutableError: on the embedded broker: that service does not run.
        """
        envelope = draft.envelope
        if envelope.kind is not Kind.COMMAND:
            raise ConfigurationError(
                f"the event {envelope.type} cannot wait at the broker: give the service a store, "
                "Service(…, store=SqlStore(engine)), or send yourself a command for later and publish from its handler"
            )
        delay_ms = due_ms - self._ambient.now_ms()
        # Upwards: never before the time.
        delay_s = max(0, -(-delay_ms // 1000))
        key = delay_key(delay_s)
        life_ms = self._life_ms(draft, delay_s * 1000)
        try:
            async with asyncio.timeout(timeout_s):
                await self._find(envelope)
                out = await self._seal(draft, life_ms=life_ms)
                if out is None:
                    return
                route = Route(exchange=self._names.delay(envelope.audience), routing_key=key)
                await self._transport.publish(out.sealed, route, out.label, timeout_s=timeout_s)
        except TimeoutError as error:
            raise PublishNotConfirmedError(
                f"no confirm for {envelope.type} within {timeout_s:g} s; the outcome is unknown, repeat it with "
                f"message_id={envelope.id}",
                message_id=envelope.id,
            ) from error
        except TopologyConflictError:
            self._found.discard(envelope.audience)
            raise
        log.debug("message.delayed", message_name=envelope.name, message_id=str(envelope.id), delay_s=delay_s)

    async def cancel(self, message_id: UUID, *, timeout_s: float) -> Cancellation:
        """Refuse: nobody can take a message out of the middle of a queue."""
        raise ConfigurationError(
            f"message {message_id} cannot be cancelled: this service has no store, so what it sends for later waits at "
            "the broker, where nothing can be taken back; give it one, Service(…, store=SqlStore(engine))"
        )

    def _life_ms(self, draft: Draft, delay_ms: int) -> int:
        """Return how long the sealed bytes must live: the delay, and then the message's own life.

        A life that nobody asked for is shortened to what the trust bundle leaves of it, to an hour at least.
        """
        longest_ms = self._longest_life_ms()
        left_ms = longest_ms - delay_ms
        own_ms = draft.life_ms
        if own_ms == self._lifetime_ms:
            own_ms = max(min(own_ms, left_ms), min(own_ms, LIFE_MIN_MS))
        if own_ms > left_ms:
            raise ConfigurationError(
                f"{draft.envelope.type} would be under way for {delay_ms // 1000} s and then live {own_ms / 1000:g} s, "
                f"sealed all the time, and the trust bundle lets nothing live beyond {longest_ms // 1000} s "
                "(max_lifetime_s): choose an earlier time or a smaller expires_in, or give the service a store, "
                "Service(…, store=SqlStore(engine)), which seals at the time"
            )
        return delay_ms + own_ms

    async def _find(self, envelope: Envelope) -> None:
        """Make sure that the levels exist: a publish to a missing exchange would end its channel."""
        service = envelope.audience
        if service in self._found:
            return
        if await self._transport.depth(self._names.delay(service, LEVELS - 1)) is None:
            await self._make(envelope)
        self._found.add(service)

    async def _make(self, envelope: Envelope) -> None:
        service = envelope.audience
        if not self._makes_levels:
            raise TopologyConflictError(
                f"{envelope.type} cannot wait for its time: service {service!r} has no delay levels. Run `messaging "
                f"topology apply --delays` with it, or give this service a store, Service(…, store=SqlStore(engine))"
            )
        end = delay_end(self._names, service)
        if await self._transport.depth(end) is None:
            raise UnroutableError(f"nobody handles {envelope.type}: no such queue {end!r}", routing_key=end)
        await self._transport.declare(delay_topology(self._names, service))
