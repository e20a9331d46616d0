"""Every exchange, queue, binding, argument and routing key, as data: the one module that spells them.

Rules: every name begins with the namespace, so two environments may share a virtual host; the default exchange is never
used, because the right to write to it is the right to write into every queue; no argument depends on a broker version.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from messaging.core.declared import SINGLE_ACTIVE, Argument, Binding, Declares, Exchange, Queue, Topology
from messaging.core.envelope import Kind
from messaging.core.names import is_service
from messaging.core.partition import slot_patterns, slot_words
from messaging.errors import ConfigurationError

__all__ = [
    "SINGLE_ACTIVE",
    "Argument",
    "Binding",
    "Declares",
    "Exchange",
    "Names",
    "Queue",
    "Subscriptions",
    "Topology",
    "dead_routing_key",
    "routing_key",
    "slot_routing_key",
]

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
REQUESTS: Final = "requests"
# Nobody buries a request: what has killed so many workers is dropped, and its caller waits no longer than it wanted to.
REQUESTS_DELIVERY_LIMIT: Final = 3

_SHARED_EXCHANGES: Final = {
    Kind.COMMAND: "commands",
    Kind.EVENT: "events",
    Kind.REQUEST: "requests",
    Kind.REPLY: "replies",
    Kind.FAULT: "dead",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriptions:
    """What a service handles, as the router reports it: (name, version) pairs by kind, and whether it wants faults.

    Attributes:
        commands, requests, events: Pairs of message name and version.
        faults: Whether failed commands of this service come back to it as faults.
        rungs_ms: Delays of the retry ladder that its policies use, milliseconds.
        keyed: Those of the commands whose messages have a key.
        partitions: How many queues share the commands with a key; None: they have no order.
    """

    commands: frozenset[tuple[str, int]] = frozenset()
    requests: frozenset[tuple[str, int]] = frozenset()
    events: frozenset[tuple[str, int]] = frozenset()
    faults: bool = False
    rungs_ms: tuple[int, ...] = ()
    keyed: frozenset[tuple[str, int]] = frozenset()
    partitions: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the service is a mere client."""
        return not (self.commands or self.requests or self.events or self.faults)


@dataclass(frozen=True, slots=True)
class Names:
    """Spells the names of one namespace.

    Attributes:
        namespace: How all of them begin.
        has_replicated_requests: Whether requests wait in a queue that outlives the node it was made on.
    """

    namespace: str
    has_replicated_requests: bool = False

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

    @property
    def audit(self) -> str:
        """Exchange and stream of the records of what operators did."""
        return f"{self.namespace}.audit"

    def exchange_of(self, kind: Kind, audience: str) -> str:
        """Return the exchange where a message of this kind is first published (docs/spec.md, table of kinds)."""
        if kind is Kind.REPLAY:
            return self.return_exchange(audience)
        return f"{self.namespace}.{_SHARED_EXCHANGES[kind]}"

    # Exchanges and queues of one service.

    def queue(self, service: str, part: str) -> str:
        """Return the queue of a service for one part, such as `commands`, `events`, `dead`, `refused`."""
        if part == REQUESTS and self.has_replicated_requests:
            # Another kind of queue needs another name: both may have to exist during a change.
            part = f"{REQUESTS}.ha"
        return f"{self.namespace}.{service}.{part}"

    def partition(self, service: str, number: int) -> str:
        """Return the queue of one partition of a service's commands, from 0."""
        return f"{self.namespace}.{service}.commands.p{number}"

    def partitions(self, service: str, subscriptions: Subscriptions) -> tuple[str, ...]:
        """Return the queues of all partitions of a service, in order."""
        return tuple(self.partition(service, number) for number in range(subscriptions.partitions or 0))

    def return_exchange(self, service: str) -> str:
        """Return the exchange that brings messages back to one queue of the service, by the queue's name."""
        return f"{self.namespace}.{service}.return"

    def undeliverable_exchange(self, service: str) -> str:
        """Return the exchange that leads to the service's dead letters, whatever the routing key."""
        return f"{self.namespace}.{service}.undeliverable"

    def rung(self, service: str, delay_ms: int) -> str:
        """Return the name of a rung of the ladder: a fan-out exchange and its queue."""
        return f"{self.rung_prefix(service)}{delay_ms}"

    def rung_prefix(self, service: str) -> str:
        """Return how the names of the service's rungs begin."""
        return f"{self.namespace}.{service}.retry."

    def delay(self, service: str, level: int | None = None) -> str:
        """Return the exchange by which delayed commands for a service enter; or a level: its queue and its exit."""
        entry = f"{self.namespace}.{service}.delay"
        return entry if level is None else f"{entry}.{level:02}"

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

    def audit_trail(self) -> Topology:
        """Return the audit stream: it keeps everything, so only an operator's account should make it, on purpose."""
        return Topology(
            exchanges=(Exchange(name=self.audit, type="fanout", is_shared=True),),
            queues=(Queue(name=self.audit, arguments={"x-queue-type": "stream"}),),
            bindings=(Binding(exchange=self.audit, queue=self.audit, routing_key=""),),
        )

    def of_service(self, service: str, subscriptions: Subscriptions) -> Topology:
        """Return everything a service needs to consume: queues, ladder, dead letters, bindings."""
        if subscriptions.is_empty:
            return self.shared()
        parts = [self.shared(), self._failures(service), self._work(service, subscriptions)]
        parts.append(self._partitions(service, subscriptions))
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
            (REQUESTS, self.requests, subscriptions.requests, self._request_arguments()),
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

    def _partitions(self, service: str, subscriptions: Subscriptions) -> Topology:
        """Return the queues of commands with a key; without partitions the plain queue takes them too."""
        single = {**self._business_arguments(service), SINGLE_ACTIVE: True}
        back = self.return_exchange(service)
        names = self.partitions(service, subscriptions)
        return Topology(
            queues=tuple(Queue(name=name, arguments=single) for name in names),
            bindings=(
                *self.slot_bindings(service, subscriptions.keyed, subscriptions.partitions),
                *(Binding(exchange=back, queue=name, routing_key=name) for name in names),
            ),
        )

    def slot_bindings(
        self, service: str, keyed: Iterable[tuple[str, int]], partitions: int | None
    ) -> tuple[Binding, ...]:
        """Return what puts commands with a key into so many partitions, or into the plain queue when there are none.

        Those of another number of partitions must be gone, or every message goes into two queues.
        """
        queues = (
            [self.queue(service, "commands")]
            if partitions is None
            else [self.partition(service, number) for number in range(partitions)]
        )
        return tuple(
            Binding(exchange=self.commands, queue=queue, routing_key=f"{routing_key(*pair)}.{pattern}")
            for pair in sorted(keyed)
            for number, queue in enumerate(queues)
            for pattern in slot_patterns(number, partitions or 1)
        )

    def _business_arguments(self, service: str) -> dict[str, Argument]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": self.undeliverable_exchange(service),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def _request_arguments(self) -> dict[str, Argument]:
        if not self.has_replicated_requests:
            return dict(_CLASSIC)
        return {"x-queue-type": "quorum", "x-delivery-limit": REQUESTS_DELIVERY_LIMIT}

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


def slot_routing_key(key: str, slot: int) -> str:
    """Return the routing key of a command with a key: that of its type, and the bits of its slot as words."""
    return f"{key}.{slot_words(slot)}"


def dead_routing_key(failed_in: str, origin: str | None) -> str:
    """Return the routing key of a dead letter: `dead.<failed_in>[.<origin>]`.

    Only a command's fault goes to its origin; an operator (`ops:…`) has no queue and is left out by the caller.
    """
    return f"dead.{failed_in}" if origin is None else f"dead.{failed_in}.{origin}"


def _keep_arguments() -> dict[str, Argument]:
    return {"x-queue-type": "quorum", "x-delivery-limit": DEAD_DELIVERY_LIMIT, "x-overflow": "reject-publish"}


def _merged(parts: Iterable[Topology]) -> Topology:
    total = Topology()
    for part in parts:
        total += part
    return total
