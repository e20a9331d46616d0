"""Every exchange, queue, binding, argument and routing key, as data: the one module that spells them.

Rules: every name begins with the namespace, so two environments may share a virtual host; the default exchange is never
used, because the right to write to it is the right to write into every queue; no argument depends on a broker version.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeVar

from messaging.core.envelope import Kind
from messaging.core.names import is_service
from messaging.errors import ConfigurationError

__all__ = ["Binding", "Declares", "Exchange", "Names", "Queue", "Subscriptions", "Topology"]

# A positive limit always: -1 discards every returned message at once on RabbitMQ 3.10, and unset means 20 from 4.0
# (docs/topology.md, "What the versions do").
DELIVERY_LIMIT: Final = 100
# Browsing a quorum queue raises the count of every message seen; a dead letter must outlive that.
DEAD_DELIVERY_LIMIT: Final = 1_000_000
FAULTS_MAX_MESSAGES: Final = 100_000
FAULTS_TTL_MS: Final = 7 * 24 * 3_600_000
# Said explicitly: a virtual host may have quorum queues as its default.
_CLASSIC: Final[Mapping[str, str]] = {"x-queue-type": "classic"}
QUARANTINE_MAX_MESSAGES: Final = 1_000
QUARANTINE_MAX_BYTES: Final = 16 * 1024 * 1024
REPLIES_EXPIRE_MS: Final = 30 * 60_000

_SHARED_EXCHANGES: Final = {
    Kind.COMMAND: "commands",
    Kind.EVENT: "events",
    Kind.REQUEST: "requests",
    Kind.REPLY: "replies",
    Kind.FAULT: "dead",
}

SINGLE_ACTIVE: Final = "x-single-active-consumer"

Argument = str | int
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange.

    Attributes:
        name, type: As the broker knows it.
        alternate: The exchange that takes what it cannot route.
        is_shared: Whether all services use it; the others belong to one.
    """

    name: str
    type: Literal["topic", "fanout", "direct"]
    alternate: str | None = None
    is_shared: bool = False

    @property
    def arguments(self) -> dict[str, Argument]:
        """Arguments of the declaration."""
        return {} if self.alternate is None else {"alternate-exchange": self.alternate}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue and its arguments.

    Attributes:
        name, arguments: As the broker knows it.
        is_passing: Whether it belongs to one running instance, which nobody can make it for beforehand.
    """

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    is_passing: bool = False

    @property
    def is_single_active(self) -> bool:
        """Whether the broker feeds one of its consumers at a time; the others stand by."""
        return self.arguments.get(SINGLE_ACTIVE) is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an exchange puts into a queue."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What should exist, in the order of declaration: exchanges, queues, bindings."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: "Topology") -> "Topology":
        return Topology(
            exchanges=_once((*self.exchanges, *other.exchanges)),
            queues=_once((*self.queues, *other.queues)),
            bindings=_once((*self.bindings, *other.bindings)),
        )


class Declares(Enum):
    """What a program makes exist; the rest must be there already, and is only looked for.

    `ALL`: everything. `OWN`: all but the exchanges that services share. `REPLIES`: the reply queue of its own instance.
    Which rights at the broker each of them takes is computed in `core.permissions`.
    """

    ALL = "all"
    OWN = "own"
    REPLIES = "replies"

    def makes(self, thing: Exchange | Queue) -> bool:
        """Tell whether a program makes an exchange, or a queue and its bindings."""
        if self is Declares.ALL:
            return True
        if isinstance(thing, Queue):
            return thing.is_passing or self is Declares.OWN
        return not thing.is_shared and self is Declares.OWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriptions:
    """What a service handles, as the router reports it: (name, version) pairs by kind, and whether it wants faults.

    Attributes:
        commands, requests, events: Pairs of message name and version.
        faults: Whether failed commands of this service come back to it as faults.
        rungs_ms: Delays of the retry ladder that its policies use, milliseconds.
    """

    commands: frozenset[tuple[str, int]] = frozenset()
    requests: frozenset[tuple[str, int]] = frozenset()
    events: frozenset[tuple[str, int]] = frozenset()
    faults: bool = False
    rungs_ms: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the service is a mere client."""
        return not (self.commands or self.requests or self.events or self.faults)


@dataclass(frozen=True, slots=True)
class Names:
    """Spells the names of one namespace."""

    namespace: str

    def __post_init__(self) -> None:
        if not is_service(self.namespace):
            raise ConfigurationError(
                f"{self.namespace!r} cannot be a namespace: use a to z, 0 to 9, _ and -, a letter first, "
                "at most 32 characters"
            )

    # Exchanges that all services share.

    @property
    def commands(self) -> str:
        """Exchange of commands."""
        return f"{self.namespace}.commands"

    @property
    def requests(self) -> str:
        """Exchange of requests."""
        return f"{self.namespace}.requests"

    @property
    def events(self) -> str:
        """Exchange of events."""
        return f"{self.namespace}.events"

    @property
    def dead(self) -> str:
        """Exchange of dead letters and faults."""
        return f"{self.namespace}.dead"

    @property
    def replies(self) -> str:
        """Exchange of replies."""
        return f"{self.namespace}.replies"

    def exchange_of(self, kind: Kind, audience: str) -> str:
        """Return the exchange where a message of this kind is first published (docs/spec.md, table of kinds)."""
        if kind is Kind.REPLAY:
            return self.return_exchange(audience)
        return f"{self.namespace}.{_SHARED_EXCHANGES[kind]}"

    # Exchanges and queues of one service.

    def queue(self, service: str, part: str) -> str:
        """Return the queue of a service for one part, such as `commands`, `events`, `dead`, `refused`."""
        return f"{self.namespace}.{service}.{part}"

    def return_exchange(self, service: str) -> str:
        """Return the exchange that brings messages back to one queue of the service, by the queue's name."""
        return f"{self.namespace}.{service}.return"

    def undeliverable_exchange(self, service: str) -> str:
        """Return the exchange that leads to the service's dead letters, whatever the routing key."""
        return f"{self.namespace}.{service}.undeliverable"

    def rung(self, service: str, delay_ms: int) -> str:
        """Return the name of a rung of the ladder: a fan-out exchange and its queue."""
        return f"{self.namespace}.{service}.retry.{delay_ms}"

    def reply_queue(self, service: str, instance: str) -> str:
        """Return the reply queue of one instance; `instance` is 16 hex digits. It is its own routing key."""
        return f"{self.namespace}.{service}.replies.{instance}"

    def lock(self, queue: str) -> str:
        """Return the exclusive queue that says a pass over `queue` is running."""
        return f"{queue}.lock"

    # What should exist.

    def shared(self) -> Topology:
        """Return the exchanges that every service uses."""
        topics = (self.commands, self.requests, self.events, self.dead, self.replies)
        return Topology(exchanges=tuple(Exchange(name=name, type="topic", is_shared=True) for name in topics))

    def of_service(self, service: str, subscriptions: Subscriptions) -> Topology:
        """Return everything a service needs to consume: queues, ladder, dead letters, bindings."""
        if subscriptions.is_empty:
            return self.shared()
        parts = [self.shared(), self._failures(service), self._work(service, subscriptions)]
        parts += [self._rung_topology(service, delay_ms) for delay_ms in subscriptions.rungs_ms]
        if subscriptions.faults:
            parts.append(self._faults(service))
        return _merged(parts)

    def of_replies(self, service: str, instance: str) -> Topology:
        """Return the reply queue of one instance: it survives a reconnect and goes 30 minutes after its owner."""
        name = self.reply_queue(service, instance)
        return self.shared() + Topology(
            queues=(Queue(name=name, arguments={**_CLASSIC, "x-expires": REPLIES_EXPIRE_MS}, is_passing=True),),
            bindings=(Binding(exchange=self.replies, queue=name, routing_key=name),),
        )

    def _work(self, service: str, subscriptions: Subscriptions) -> Topology:
        queues: list[Queue] = []
        bindings: list[Binding] = []
        work: tuple[tuple[str, str, frozenset[tuple[str, int]], dict[str, Argument]], ...] = (
            ("commands", self.commands, subscriptions.commands, self._business_arguments(service)),
            ("events", self.events, subscriptions.events, self._business_arguments(service)),
            ("requests", self.requests, subscriptions.requests, dict(_CLASSIC)),
        )
        for part, exchange, pairs, arguments in work:
            if not pairs:
                continue
            name = self.queue(service, part)
            queues.append(Queue(name=name, arguments=arguments))
            bindings += [
                Binding(exchange=exchange, queue=name, routing_key=routing_key(*pair)) for pair in sorted(pairs)
            ]
            bindings.append(Binding(exchange=self.return_exchange(service), queue=name, routing_key=name))
        return Topology(queues=tuple(queues), bindings=tuple(bindings))

    def _business_arguments(self, service: str) -> dict[str, Argument]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": self.undeliverable_exchange(service),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def _failures(self, service: str) -> Topology:
        dead, refused, quarantine = (self.queue(service, part) for part in ("dead", "refused", "quarantine"))
        back = self.return_exchange(service)
        undeliverable = self.undeliverable_exchange(service)
        bounds: dict[str, Argument] = {
            **_CLASSIC,
            "x-max-length": QUARANTINE_MAX_MESSAGES,
            "x-max-length-bytes": QUARANTINE_MAX_BYTES,
        }
        return Topology(
            # The alternate exchange comes first: with it a message to a missing queue goes to the dead letters at once
            # instead of stopping the rung for its neighbours.
            exchanges=(
                Exchange(name=undeliverable, type="fanout"),
                Exchange(name=back, type="direct", alternate=undeliverable),
            ),
            queues=(
                Queue(name=dead, arguments=_keep_arguments()),
                Queue(name=refused, arguments=_keep_arguments()),
                Queue(name=quarantine, arguments=bounds),
            ),
            bindings=(
                Binding(exchange=undeliverable, queue=dead, routing_key=""),
                Binding(exchange=self.dead, queue=dead, routing_key=f"dead.{service}.#"),
                Binding(exchange=back, queue=refused, routing_key=refused),
                Binding(exchange=back, queue=quarantine, routing_key=quarantine),
            ),
        )

    def _faults(self, service: str) -> Topology:
        faults = self.queue(service, "faults")
        return Topology(
            queues=(
                Queue(
                    name=faults,
                    arguments={
                        "x-queue-type": "quorum",
                        "x-delivery-limit": DELIVERY_LIMIT,
                        "x-max-length": FAULTS_MAX_MESSAGES,
                        "x-overflow": "drop-head",
                        "x-message-ttl": FAULTS_TTL_MS,
                    },
                ),
            ),
            bindings=(
                Binding(exchange=self.dead, queue=faults, routing_key=f"dead.*.{service}"),
                Binding(exchange=self.return_exchange(service), queue=faults, routing_key=faults),
            ),
        )

    def _rung_topology(self, service: str, delay_ms: int) -> Topology:
        name = self.rung(service, delay_ms)
        arguments: dict[str, Argument] = {
            "x-queue-type": "quorum",
            "x-message-ttl": delay_ms,
            # No dead-letter routing key: the original key, the queue to come back to, is kept.
            "x-dead-letter-exchange": self.return_exchange(service),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
        }
        return Topology(
            exchanges=(Exchange(name=name, type="fanout"),),
            queues=(Queue(name=name, arguments=arguments),),
            bindings=(Binding(exchange=name, queue=name, routing_key=""),),
        )


def routing_key(name: str, version: int) -> str:
    """Return the routing key of a command, event or request, such as `orders.place_order.v1`."""
    return f"{name}.v{version}"


def is_way_back(exchange: str, service: str) -> bool:
    """Tell whether an exchange is, in whatever namespace, the one that brings messages back to the service's queues."""
    return exchange.endswith(f".{service}.return")


def dead_routing_key(failed_in: str, origin: str | None) -> str:
    """Return the routing key of a dead letter: `dead.<failed_in>[.<origin>]`.

    Only a command's fault goes to its origin; an operator (`ops:…`) has no queue and is left out by the caller.
    """
    return f"dead.{failed_in}" if origin is None else f"dead.{failed_in}.{origin}"


def _keep_arguments() -> dict[str, Argument]:
    return {"x-queue-type": "quorum", "x-delivery-limit": DEAD_DELIVERY_LIMIT, "x-overflow": "reject-publish"}


def _once(items: Iterable[_Item]) -> tuple[_Item, ...]:
    kept: list[_Item] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return tuple(kept)


def _merged(parts: Iterable[Topology]) -> Topology:
    total = Topology()
    for part in parts:
        total += part
    return total
