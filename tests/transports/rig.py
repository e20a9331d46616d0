"""What a transport's tests supply to the conformance suite, and the words its cases are written in."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol
from uuid import UUID

from messaging.core.sealed import Label, Route
from messaging.core.topology import Argument, Binding, Exchange, Names, Queue, Topology, routing_key
from messaging.transports.base import Delivery, Transport
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually

__all__ = [
    "KEY",
    "LIMIT_S",
    "Recorder",
    "Rig",
    "ack",
    "depth_of",
    "dlx",
    "eventually_depth",
    "fanout",
    "label",
    "publish",
    "reject",
    "rung",
    "to",
    "work",
]

LIMIT_S: Final = 30.0
"""Bound of every call and wait of the suite, seconds: a lost message ends in a sentence, not in a hang."""

KEY: Final = routing_key("orders.place_order", 1)
"""The routing key of most cases."""


class Rig(Protocol):
    """One broker as the suite sees it. A fresh one per test: its namespace holds nothing yet."""

    @property
    def names(self) -> Names:
        """Names of a namespace that no other test uses."""

    @property
    def max_body_bytes(self) -> int:
        """The largest body that the broker is configured to accept."""

    async def transport(self) -> Transport:
        """Return a new connected transport of this broker. The rig closes what is left open when the test ends."""

    async def kill(self, transport: Transport) -> None:
        """Crash it: its connections end without a word, nothing is flushed, and it never comes back."""

    async def cut(self, transport: Transport) -> None:
        """End its connections under its feet and let it mend itself. Returns once they have ended."""

    def stalled(self) -> AbstractAsyncContextManager[None]:
        """While inside, the broker answers nobody: no confirm, no delivery. It keeps what it was sent for later."""

    async def inject(
        self, exchange: str, routing_key: str, body: bytes, *, headers: Mapping[str, object] | None = None
    ) -> None:
        """Publish as a foreign client would, with any headers, and return once the broker has it."""


@dataclass(slots=True)
class Recorder:
    """Takes deliveries and keeps them in order; `settle` is applied to each at once, when given."""

    settle: Callable[[Delivery], None] | None = None
    deliveries: list[Delivery] = field(default_factory=list)

    def __call__(self, delivery: Delivery) -> None:
        """Take one: this is the `on_delivery` of a consumer."""
        self.deliveries.append(delivery)
        if self.settle is not None:
            self.settle(delivery)

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def bodies(self) -> list[bytes]:
        """Bodies in order of arrival."""
        return [delivery.body for delivery in self.deliveries]

    async def reaches(self, count: int, timeout_s: float = LIMIT_S) -> list[Delivery]:
        """Wait until that many have arrived and return them."""
        await eventually(
            lambda: len(self.deliveries) >= count,
            timeout_s,
            what=lambda: f"{count} deliveries ({len(self.deliveries)} came)",
        )
        return self.deliveries


def ack(delivery: Delivery) -> None:
    """Settle: done with it."""
    delivery.ack()


def reject(delivery: Delivery) -> None:
    """Give it back as a failure."""
    delivery.reject()


def label(number: int = 0, *, attempt: int = 1, first_failed_ms: int | None = None) -> Label:
    """Return a label whose message id is made of the number."""
    return Label(
        message_id=UUID(int=number).hex, type="orders.place_order/1", attempt=attempt, first_failed_ms=first_failed_ms
    )


def to(exchange: str, key: str = KEY, *, mandatory: bool = True, expiration_ms: int | None = None) -> Route:
    """Return a route of persistent messages."""
    return Route(exchange=exchange, routing_key=key, mandatory=mandatory, expiration_ms=expiration_ms)


async def publish(transport: Transport, route: Route, *bodies: bytes, first: int = 0) -> None:
    """Publish the bodies one after the other, numbering their ids."""
    for number, body in enumerate(bodies, start=first):
        await transport.publish(as_sealed(body), route, label(number), timeout_s=LIMIT_S)


async def depth_of(transport: Transport, queue: str) -> int | None:
    """Return how many messages are ready in the queue, or None when it does not exist."""
    depth = await transport.depth(queue)
    return None if depth is None else depth.messages


async def eventually_depth(transport: Transport, queue: str, messages: int | None) -> None:
    """Wait until that many messages are ready in the queue (None: until it is gone)."""

    async def is_reached() -> bool:
        return await depth_of(transport, queue) == messages

    await eventually(is_reached, LIMIT_S, what=f"{messages} messages ready in {queue}")


# Topologies. The real ones of services come from `Names`; these vary one argument each.


def work(
    names: Names,
    arguments: Mapping[str, Argument] | None = None,
    *,
    service: str = "orders",
    pattern: str = KEY,
    kind: Literal["topic", "direct", "fanout"] = "topic",
) -> Topology:
    """Return the commands exchange and one service's queue behind it, quorum unless the arguments say otherwise."""
    queue = names.queue(service, "commands")
    quorum: Mapping[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": 100}
    return Topology(
        exchanges=(Exchange(name=names.commands, type=kind),),
        queues=(Queue(name=queue, arguments=quorum if arguments is None else arguments),),
        bindings=(Binding(exchange=names.commands, queue=queue, routing_key=pattern),),
    )


def fanout(exchange: str, queue: str, arguments: Mapping[str, Argument] | None = None) -> Topology:
    """Return a fan-out exchange with one queue behind it."""
    return Topology(
        exchanges=(Exchange(name=exchange, type="fanout"),),
        queues=(Queue(name=queue, arguments=arguments or {}),),
        bindings=(Binding(exchange=exchange, queue=queue, routing_key=""),),
    )


def dlx(names: Names, service: str = "orders") -> Topology:
    """Return the exchange that takes what the service's queues give up, and the dead queue behind it."""
    return fanout(
        names.undeliverable_exchange(service),
        names.queue(service, "dead"),
        {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"},
    )


def rung(names: Names, delay_ms: int, service: str = "orders") -> Topology:
    """Return a rung of the ladder, its way back, and the two work queues that messages may come back to."""
    back = names.return_exchange(service)
    queues = tuple(
        Queue(name=names.queue(service, part), arguments={"x-queue-type": "quorum", "x-delivery-limit": 100})
        for part in ("commands", "events")
    )
    returns = Topology(
        exchanges=(Exchange(name=back, type="direct"),),
        queues=queues,
        bindings=tuple(Binding(exchange=back, queue=queue.name, routing_key=queue.name) for queue in queues),
    )
    return returns + fanout(
        names.rung(service, delay_ms),
        names.rung(service, delay_ms),
        {
            "x-queue-type": "quorum",
            "x-message-ttl": delay_ms,
            "x-dead-letter-exchange": back,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": 100,
        },
    )
