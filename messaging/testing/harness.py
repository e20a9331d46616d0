"""`Harness`: real services, real sealing and the embedded broker, in one process and on a fixed clock.

Example:
    async with Harness(orders, users) as h:
        await h.send(PlaceOrder(order_id=order_id, total_cents=100), sender="users")
        await h.settled()
        assert h.published == [OrderPlaced(order_id=order_id)]
        assert h.dead("orders") == []
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from messaging.assembly import build
from messaging.core.dead_letter import DeadLetter, Selection
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Command, Event, Message, Request, contract_of
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.operators import open_operator
from messaging.runtime.context import Context
from messaging.runtime.dead_letters import ReplayReport
from messaging.runtime.injection import Overrides
from messaging.runtime.letters import LetterReader
from messaging.runtime.middleware import Call
from messaging.runtime.publisher import Publisher
from messaging.runtime.router import Handler
from messaging.runtime.schedules import Schedules
from messaging.runtime.seams import Seams
from messaging.security.development import DevelopmentTrust
from messaging.security.open import Opener
from messaging.service import Service
from messaging.settings import Settings
from messaging.testing.clock import FixedClock
from messaging.transports.base import Death
from messaging.transports.memory import MemoryBroker

__all__ = ["Harness"]

OPERATOR: Final = "ops:test"
_QUIET_ROUNDS: Final = 5
_LOOK_AGAIN_S: Final = 0.001
_TRUST_LIFE_MS: Final = 24 * 3_600_000
_EVERYTHING: Final = Selection()

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Still:
    """A letter looked at where it lies, without taking it out of its queue."""

    body: bytes
    attempt: int = 1
    first_failed_ms: int | None = None
    exchange: str = ""
    routing_key: str = ""
    deaths: tuple[Death, ...] = ()


@dataclass(slots=True)
class _Failing:
    error: type[BaseException] | BaseException
    times: int


class Harness:
    """Runs services for a test.

    Args:
        *services: The services; their own settings are not used.
        overrides: A dependency of handlers, or the class of a resource → the function that takes its place.

    Attributes:
        sent: Commands that went out, in order.
        published: Events that went out, in order.
    """

    def __init__(self, *services: Service, overrides: Overrides | None = None) -> None:
        self._services = {service.name: service for service in services}
        self._overrides = overrides or {}
        self._check_overrides()
        self._clock = FixedClock()
        self._settings = Settings.development()
        self._broker = self._settings.shared(MemoryBroker, lambda: MemoryBroker(is_manual=True))
        self._trust = self._settings.shared(DevelopmentTrust, lambda: DevelopmentTrust(ambient=self._clock.ambient))
        self._renewed_ms = self._clock.now_ms()
        self._stack = AsyncExitStack()
        self._clients: dict[str, Publisher] = {}
        self._schedules: list[Schedules] = []
        self._calls: dict[Any, list[Message]] = {}
        self._failing: dict[Any, _Failing] = {}
        self.sent: list[Command] = []
        self.published: list[Event] = []

    async def __aenter__(self) -> Self:
        # Every service is known before any starts, so that the first may already send to the last.
        for service in self._services.values():
            self._trust.join(service.name, service.subscriptions)
        for service in self._services.values():
            await service.start(seams=self._seams)
            self._stack.push_async_callback(service.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # ---- acting

    async def send(
        self, command: Command, *, sender: str, message_id: UUID | None = None, deliver_at: datetime | None = None
    ) -> UUID:
        """Send a command as a service or operator; one that is not under test is made up."""
        publisher = await self._publisher(sender)
        return await publisher.send(command, message_id=message_id, deliver_at=deliver_at)

    async def publish(self, event: Event, *, sender: str | None = None, deliver_at: datetime | None = None) -> UUID:
        """Publish an event, as its owner unless told otherwise."""
        publisher = await self._publisher(sender or contract_of(event).owner)
        return await publisher.publish(event, deliver_at=deliver_at)

    async def request(self, request: Request[R], *, sender: str, timeout: float = 5.0) -> R:
        """Ask as a service or operator and return the answer."""
        return await (await self._publisher(sender)).request(request, timeout_s=timeout)

    async def settled(self, *, timeout: float = 10.0) -> None:
        """Wait until nothing is under way; what waits for the clock stays where it is.

        Raises:
            TimeoutError: something still is after `timeout` real seconds.
        """
        async with asyncio.timeout(timeout):
            quiet = 0
            while quiet < _QUIET_ROUNDS:
                await asyncio.sleep(_LOOK_AGAIN_S)
                quiet = quiet + 1 if self._is_idle() else 0

    async def advance(self, delay_s: float) -> None:
        """Let time pass, rung by rung, and wait until what it brought back has been handled."""
        until_ms = self._clock.now_ms() + round(delay_s * 1000)
        await self.settled()
        while (due_ms := await self._next_due_ms()) is not None and due_ms <= until_ms:
            await self._advance_to(max(due_ms, self._clock.now_ms()))
        await self._advance_to(until_ms)

    async def replay(
        self, service: str, selection: Selection = _EVERYTHING, *, reason: str = "test", force: bool = False
    ) -> ReplayReport:
        """Replay dead letters as an operator."""
        async with open_operator(self._settings, OPERATOR, ambient=self._clock.ambient) as operator:
            return await operator.dead_letters.replay(service, selection, reason=reason, force=force)

    @contextmanager
    def failing(self, handler: Any, error: type[BaseException] | BaseException, *, times: int = 1) -> Iterator[None]:
        """Let the next runs of a handler raise instead of running.

        Args:
            handler: The function that was decorated.
            error: What it raises.
            times: How many runs; the ones after run as usual.
        """
        self._known(handler)
        self._failing[handler] = _Failing(error, times)
        try:
            yield
        finally:
            self._failing.pop(handler, None)

    # ---- looking

    @property
    def now(self) -> datetime:
        """The time of the fixed clock, which `advance` moves; what `deliver_at` is compared with."""
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, tz=UTC)

    def calls(self, handler: Any) -> list[Any]:
        """Return the messages that a handler was called with, in order, failed runs included."""
        self._known(handler)
        return list(self._calls.get(handler, ()))

    def dead(self, service: str) -> list[DeadLetter]:
        """Return the dead letters of a service, opened with an operator's keys."""
        keyring, trust = self._trust.operator(OPERATOR)
        opener = Opener(keyring, trust, self._settings.names, ambient=self._clock.ambient)
        reader = LetterReader(opener)
        return [reader.read(service, _Still(body=body)) for body in self.bodies(service, "dead")]

    def bodies(self, service: str, part: str) -> list[bytes]:
        """Return the sealed bytes in a queue of a service, such as `refused`: what the broker sees."""
        queue = self._settings.names.queue(service, part)
        return self._broker.bodies(queue) if self._broker.depth(queue) is not None else []

    # ---- inside

    @property
    def _seams(self) -> Seams:
        return Seams(
            settings=self._settings,
            ambient=self._clock.ambient,
            around=self._around,
            on_published=self._record,
            on_schedules=self._schedules.append,
            overrides=self._overrides,
            later=self._clock.later,
        )

    def _around(self, handler: Handler) -> Call:
        """Record each call of a handler, and let it fail when a test asked for that."""
        inner = handler.overridden(self._overrides).call

        async def call(message: Any, context: Context) -> Any:
            self._calls.setdefault(handler.call, []).append(message)
            failing = self._failing.get(handler.call)
            if failing is not None and failing.times > 0:
                failing.times -= 1
                raise failing.error
            return await inner(message, context)

        return call

    def _record(self, message: Message, envelope: Envelope) -> None:
        if isinstance(message, Command):
            self.sent.append(message)
        elif envelope.kind is Kind.EVENT and isinstance(message, Event):
            self.published.append(message)

    def _check_overrides(self) -> None:
        handlers = [handler for service in self._services.values() for handler in service.handlers]
        asked = {
            wish for handler in handlers for wish in handler.overridden(self._overrides).asked | handler.plan.asked
        }
        for unasked in self._overrides.keys() - asked:
            raise ConfigurationError(f"overrides: no handler of these services depends on {unasked!r}")

    async def _next_due_ms(self) -> int | None:
        """Return when the next thing happens by itself: a delay of the broker or a rest ends, a message is due."""
        waits_s = [wait_s for schedules in self._schedules if (wait_s := await schedules.next_due_s()) is not None]
        due_ms = [self._clock.now_ms() + round(wait_s * 1000) for wait_s in waits_s]
        others_ms = (self._broker.next_due_ms(), self._clock.next_due_ms())
        return min([*due_ms, *(other_ms for other_ms in others_ms if other_ms is not None)], default=None)

    async def _advance_to(self, now_ms: int) -> None:
        self._clock.advance(now_ms - self._clock.now_ms())
        if now_ms - self._renewed_ms > _TRUST_LIFE_MS:
            # In an installation somebody installs a newer bundle before the old one ends.
            self._trust.renew()
            self._renewed_ms = now_ms
        await self._broker.advance_to(now_ms)
        for schedules in self._schedules:
            while await schedules.release_due():
                pass
        await self.settled()

    def _known(self, handler: Any) -> None:
        known = [found.call for service in self._services.values() for found in service.handlers]
        if handler not in known:
            raise ConfigurationError(f"{handler!r} handles nothing in this harness; pass the decorated function")

    def _is_idle(self) -> bool:
        services = self._services.values()
        # Partitions hold what waits for the clock, instead of sending it to a rung.
        resting = {queue: count for service in services for queue, count in service.resting.items()}
        return self._broker.is_idle(resting=resting) and all(service.is_idle for service in services)

    async def _publisher(self, sender: str) -> Publisher:
        service = self._services.get(sender)
        if service is not None:
            return service.publisher
        if sender not in self._clients:
            parts = build(
                self._settings, sender, Subscriptions(), ambient=self._clock.ambient, on_published=self._record
            )
            await parts.transport.connect()
            self._stack.push_async_callback(parts.transport.aclose)
            await parts.transport.declare(parts.names.shared())
            self._clients[sender] = parts.publisher
        return self._clients[sender]
