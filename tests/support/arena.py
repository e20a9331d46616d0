"""`Arena`: the services of a `Realm` on the embedded broker, and the doors of whoever reaches that broker.

The services are real: `Service`, its consume path, real keys and a really signed bundle. The attacker may put any bytes
and headers into any queue; what keys he holds, a test takes from the realm. `struck` says what became of a delivery.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel

from messaging import Command, Context, Event, Request, Service, Settings
from messaging.core.codec import encode_model
from messaging.core.envelope import Envelope
from messaging.core.fault import Fault
from messaging.core.message import Message
from messaging.core.topology import Binding, Queue, Subscriptions, Topology
from messaging.runtime.engine import Engine
from messaging.runtime.middleware import Call
from messaging.runtime.router import Handler
from messaging.runtime.seams import Seams
from messaging.security.development import DevelopmentTrust
from messaging.security.keyring import Keyring
from messaging.security.trust import TrustStore
from messaging.stores.base import Store
from messaging.stores.memory import MemoryInbox
from messaging.transports.memory import MemoryBroker, MemoryTransport
from messaging.transports.memory.parcel import Parcel
from tests.support.realm import NAMES, Clock, Realm

__all__ = [
    "MARKER",
    "Arena",
    "CancelOrder",
    "Charge",
    "GetOrder",
    "OrderPlaced",
    "OrderView",
    "Outcome",
    "PlaceOrder",
    "Run",
    "contract_edit",
]

# What stands in every payload and must be found nowhere but in a handler.
MARKER: Final = "payload-marker-9d1c7e55"
FAILURES: Final = ("quarantine", "refused", "dead")
RUNGS_MS: Final = (1_000, 5_000, 30_000, 120_000, 600_000)
_SPIES: Final = {"replies": NAMES.replies, "dead": NAMES.dead, "requests": NAMES.requests}
# Turns of the event loop without anything under way: more than any hand-over between two tasks takes.
_QUIET_TURNS: Final = 20


class OrderView(BaseModel):
    """Answer."""

    status: str


class PlaceOrder(Command, name="orders.place_order"):
    """What users send to orders."""

    note: str = MARKER


class CancelOrder(Command, name="orders.cancel_order"):
    """Another command of orders."""

    note: str = MARKER


class Charge(Command, name="billing.charge"):
    """What only billing handles."""

    note: str = MARKER


class GetOrder(Request[OrderView], name="orders.get_order"):
    """What users ask orders."""

    note: str = MARKER


class OrderPlaced(Event, name="orders.order_placed"):
    """What users and billing hear."""

    note: str = MARKER


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a handler."""

    service: str
    message: Any
    context: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What changed between an attack and the quiet after it.

    Attributes:
        ran: Runs of handlers.
        counts: Counters of the service that rose, and by how much.
        quarantined, refused, dead: What came into these queues of the service.
        waiting: How many more messages are on rungs of the service's ladder.
        left: How many more are in the attacked queue itself.
        said: What came out at an exchange: replies, dead letters, requests.
    """

    ran: tuple[Run, ...]
    counts: Mapping[str, int]
    quarantined: tuple[bytes, ...]
    refused: tuple[bytes, ...]
    dead: tuple[bytes, ...]
    waiting: int
    left: int
    said: Mapping[str, int]

    def assert_forged(self, code: str, *, times: int = 1) -> None:
        """Check that nothing was believed: counted by code, sampled at most, and nothing said."""
        self._assert_silent()
        assert dict(self.counts) == {f"skipped.{code}": times}
        assert len(self.quarantined) == min(times, 10)
        assert (self.refused, self.dead, self.waiting) == ((), (), 0)

    def assert_refused(self, code: str, *bodies: bytes) -> None:
        """Check that it was authentic and is kept whole, for people to look at."""
        self._assert_silent()
        assert dict(self.counts) == {f"refused.{code}": len(self.refused)}
        assert self.refused == bodies
        assert (self.quarantined, self.dead, self.waiting) == ((), (), 0)

    def assert_buried(self, *, times: int = 1) -> None:
        """Check that it is among the dead letters, with a fault, and that no handler ran."""
        # The origin of a command may hear of it; nobody else does anything.
        assert all(isinstance(run.message, Fault) for run in self.ran)
        assert dict(self.counts) == {"buried": times}
        assert len(self.dead) == times
        assert (self.quarantined, self.refused, self.waiting, self.left) == ((), (), 0, 0)
        assert self.said == {"dead": times}

    def assert_skipped(self, code: str, *, times: int = 1) -> None:
        """Check that it was dropped on purpose: counted, and that is all."""
        self._assert_silent()
        assert dict(self.counts) == {f"skipped.{code}": times}
        assert (self.quarantined, self.refused, self.dead, self.waiting) == ((), (), (), 0)

    def assert_deferred(self, *, times: int = 1) -> None:
        """Check that it waits on a rung."""
        self._assert_silent()
        assert dict(self.counts) == {"deferred": times}
        assert self.waiting == times
        assert (self.quarantined, self.refused, self.dead) == ((), (), ())

    def assert_ran(self, *, times: int = 1) -> None:
        """Check that it was handled, and that is all."""
        assert len(self.ran) == times
        assert dict(self.counts) == {"handled": times}
        assert (self.quarantined, self.refused, self.dead, self.waiting, self.left) == ((), (), (), 0, 0)

    def _assert_silent(self) -> None:
        assert self.ran == ()
        assert self.said == {}
        assert self.left == 0


class _RealmTrust(DevelopmentTrust):
    """Hands out the realm's keys where a service would make throwaway ones."""

    def __init__(self, realm: Realm) -> None:
        self.realm = realm

    def join(self, service: str, subscriptions: Subscriptions = Subscriptions()) -> tuple[Keyring, TrustStore]:  # noqa: B008
        return self.realm.keyrings[service], self.realm.stores[service]

    def operator(self, name: str) -> tuple[Keyring, TrustStore]:
        return self.realm.keyrings[name], self.realm.stores[name]


def contract_edit(payload: dict[str, Any]) -> None:
    """Let everybody in the arena do what the attacks take for granted."""
    policy = payload["policy"]
    policy["send"] += [
        {"from": "users", "kind": "command", "name": "billing.charge", "to": "billing"},
        {"from": "ops:alice", "kind": "command", "name": "orders.*", "to": "orders"},
    ]


class _Replica(Service):
    """A service that may remember in an inbox which other replicas share."""

    inbox: MemoryInbox | None = None

    def _engine_of(self, *parts: Any) -> Engine:
        engine = super()._engine_of(*parts)
        if self.inbox is not None:
            engine._consumer._inbox = engine._settler._inbox = self.inbox
        return engine


def _services() -> dict[str, _Replica]:
    orders, users, billing = _Replica("orders"), _Replica("users"), _Replica("billing")

    @orders.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    @orders.on_command(CancelOrder)
    async def cancel(command: CancelOrder, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    @orders.on_request(GetOrder)
    async def get(request: GetOrder, context: Context) -> OrderView:
        return OrderView(status=MARKER)

    @users.on_event(OrderPlaced)
    async def note(event: OrderPlaced, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    @users.on_fault(PlaceOrder)
    async def regret(fault: Fault, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    @billing.on_event(OrderPlaced)
    async def invoice(event: OrderPlaced, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    @billing.on_command(Charge)
    async def charge(command: Charge, context: Context) -> None:
        """Do nothing: the arena remembers the run."""

    return {"orders": orders, "users": users, "billing": billing}


@dataclass(slots=True)
class _Before:
    ran: int
    counts: dict[str, int]
    held: dict[str, int]
    waiting: int
    left: int
    said: dict[str, int]


@dataclass
class Arena:
    """Runs the realm's services.

    Attributes:
        realm: Keys, bundle, clock.
        names: Which services run.
        replicas: More copies of services, each with its own connection and inbox.
        behave: What a service's handlers do instead of their own work.
    """

    realm: Realm = field(default_factory=Realm)
    names: tuple[str, ...] = ("orders", "users", "billing")
    replicas: tuple[str, ...] = ()
    behave: dict[str, Callable[[Any, Context], Awaitable[Any]]] = field(default_factory=dict)
    ran: list[Run] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.realm.publish(contract_edit)
        self.settings = Settings.development(prefetch=16, drain_timeout_s=0.2)
        self.broker = self.settings.shared(MemoryBroker, lambda: MemoryBroker(is_manual=True))
        self.settings.shared(DevelopmentTrust, lambda: _RealmTrust(self.realm))
        self.broker.observe(self.clock.now_ms)

    async def __aenter__(self) -> Self:
        self.broker.declare(NAMES.shared())
        for name in self.names:
            await self.start(name)
        for name in self.replicas:
            await self.start(name, as_name=f"{name}'")
        for word, exchange in _SPIES.items():
            queue = f"spy.{word}"
            self.broker.declare(
                Topology(
                    queues=(Queue(name=queue),), bindings=(Binding(exchange=exchange, queue=queue, routing_key="#"),)
                )
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def clock(self) -> Clock:
        return self.realm.clock

    async def start(
        self,
        name: str,
        *,
        as_name: str | None = None,
        inbox: MemoryInbox | None = None,
        store: Store | None = None,
    ) -> Service:
        """Start a service, or one more replica of it, with an inbox of its own, a given one, or a durable store."""
        service = _services()[name]
        service.inbox, service._store = inbox, store
        self.services[as_name or name] = service
        await service.start(
            seams=Seams(
                settings=self.settings,
                ambient=self.clock.ambient,
                around=lambda handler: self._around(as_name or name, handler),
                on_published=lambda message, envelope: None,
            )
        )
        self._stack.push_async_callback(service.stop)
        return service

    # ---- the attacker's doors

    def inject(self, body: bytes, *, service: str = "orders", part: str = "commands", **headers: object) -> None:
        """Put bytes into a queue of a service."""
        written = {name.replace("_", "-"): value for name, value in headers.items()}
        self.broker.inject(NAMES.return_exchange(service), NAMES.queue(service, part), body, headers=written)

    def publish(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
        """Publish bytes as a foreign client, with any properties that the embedded broker knows."""
        self.broker.publish(Parcel(body=body, exchange=exchange, routing_key=routing_key, **properties))

    async def struck(
        self, *bodies: bytes, service: str = "orders", part: str = "commands", **headers: object
    ) -> Outcome:
        """Inject bytes, wait until all is quiet, and return what changed."""
        before = self._now(service, part)
        for body in bodies:
            self.inject(body, service=service, part=part, **headers)
        await self.settled()
        return self._since(before, service, part)

    async def elapsed(self, seconds: float, *, service: str = "orders", part: str = "commands") -> Outcome:
        """Let time pass and return what changed."""
        before = self._now(service, part)
        await self.advance(seconds)
        return self._since(before, service, part)

    # ---- time

    async def settled(self, *, timeout: float = 90.0) -> None:
        """Wait until nothing is under way; what waits for the clock stays where it is."""
        async with asyncio.timeout(timeout):
            quiet = 0
            while quiet < _QUIET_TURNS:
                await asyncio.sleep(0)
                busy = not self.broker.is_idle() or any(service.running for service in self.services.values())
                quiet = 0 if busy else quiet + 1

    async def advance(self, seconds: float) -> None:
        """Let time pass, and the services work at each point where something is due."""
        until_ms = self.clock.now_ms + round(seconds * 1000)
        await self.settled()
        while (due_ms := self.broker.next_due_ms()) is not None and due_ms <= until_ms:
            self.clock.advance(max(0, due_ms - self.clock.now_ms) / 1000)
            await self.broker.advance_to(self.clock.now_ms)
            await self.settled()
        self.clock.advance((until_ms - self.clock.now_ms) / 1000)
        await self.broker.advance_to(until_ms)
        await self.settled()

    # ---- looking

    def bodies(self, service: str, part: str) -> list[bytes]:
        """Return the bytes in a queue of a service."""
        queue = NAMES.queue(service, part)
        return [] if self.broker.depth(queue) is None else self.broker.bodies(queue)

    def said(self, word: str) -> list[bytes]:
        """Return what was published to replies, dead letters or requests."""
        return self.broker.bodies(f"spy.{word}")

    def counts(self, service: str) -> dict[str, int]:
        """Return the counters of a service by outcome."""
        counts = self.services[service].health.details["counts"]
        assert isinstance(counts, dict)
        return dict(counts)

    def waiting(self, service: str) -> int:
        """Return how many messages are on the rungs of a service."""
        return sum(len(self.broker.bodies(NAMES.rung(service, rung))) for rung in RUNGS_MS)

    def inbox(self, service: str) -> MemoryInbox:
        """Return what remembers the messages of a service."""
        inbox = self._engine(service)._consumer._inbox
        assert isinstance(inbox, MemoryInbox)
        return inbox

    def use_inbox(self, service: str, inbox: Any) -> None:
        """Put another inbox in the place of a service's own, while nothing is under way."""
        engine = self._engine(service)
        engine._consumer._inbox = engine._settler._inbox = inbox

    def transport(self, service: str) -> MemoryTransport:
        """Return a service's way to the broker."""
        parts = self.services[service]._parts
        assert parts is not None
        assert isinstance(parts.transport, MemoryTransport)
        return parts.transport

    def runs_of(self, message_id: UUID | bytes) -> list[Run]:
        """Return the runs of one message."""
        wanted = UUID(bytes=message_id) if isinstance(message_id, bytes) else message_id
        return [run for run in self.ran if run.context.message_id == wanted]

    # ---- making

    def envelope(self, message: Message, **changes: Any) -> Envelope:
        """Return the envelope of a message from users, changed as told."""
        from_contract = envelope_of(message)
        return self.realm.envelope(**(from_contract | changes))

    def sealed(self, message: Message | None = None, **changes: Any) -> bytes:
        """Return the sealed bytes of a message from users, changed as told."""
        values = envelope_of(PlaceOrder() if message is None else message) | changes
        return self.realm.sealed(**values)

    # ---- inside

    def _engine(self, service: str) -> Any:
        engine = self.services[service]._engine
        assert engine is not None
        return engine

    def _around(self, name: str, handler: Handler) -> Call:
        async def call(message: Any, context: Context) -> Any:
            self.ran.append(Run(service=name, message=message, context=context))
            instead = self.behave.get(name)
            return await (handler.call if instead is None else instead)(message, context)

        return call

    def _now(self, service: str, part: str) -> _Before:
        return _Before(
            ran=len(self.ran),
            counts=self.counts(service),
            held={word: len(self.bodies(service, word)) for word in FAILURES},
            waiting=self.waiting(service),
            left=len(self.bodies(service, part)),
            said={word: len(self.said(word)) for word in _SPIES},
        )

    def _since(self, before: _Before, service: str, part: str) -> Outcome:
        found = {word: tuple(self.bodies(service, word)[before.held[word] :]) for word in FAILURES}
        rose = {word: count - before.counts.get(word, 0) for word, count in self.counts(service).items()}
        said = {word: len(self.said(word)) - before.said[word] for word in _SPIES}
        return Outcome(
            ran=tuple(self.ran[before.ran :]),
            counts={word: by for word, by in rose.items() if by},
            quarantined=found["quarantine"],
            refused=found["refused"],
            dead=found["dead"],
            waiting=self.waiting(service) - before.waiting,
            left=len(self.bodies(service, part)) - before.left,
            said={word: count for word, count in said.items() if count},
        )


def envelope_of(message: Message) -> dict[str, Any]:
    """Return what a message's contract says of its envelope."""
    contract = type(message).__contract__
    assert contract is not None
    sender = "orders" if isinstance(message, Event) else "users"
    return {
        "kind": contract.kind,
        "name": contract.name,
        "version": contract.version,
        "sender": sender,
        "payload": encode_model(message, contract.codec),
        "codec": contract.codec,
    }
