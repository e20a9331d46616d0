"""The ports: `Transport` moves sealed bytes, `Delivery` is one message that arrived, `Subscription` a running consumer.

Contract, which `tests/transports/conformance.py` checks on every implementation:

1. `publish` returns only once the broker has confirmed; two publishes in flight never wait for one another.
2. `consume` hands each delivery over by a plain call: at most `prefetch` are unsettled at any time.
3. Settling (`ack`, `reject`, `give_back`) is a plain call that never fails: on a channel that is gone it is counted and
   dropped, and the broker delivers the message again.
4. The transport mends itself: after a lost connection it declares the topology again, resumes the subscriptions, and
   re-sends what was unconfirmed with the same bytes until each caller's deadline.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from messaging.core.sealed import Label, Route, Sealed
from messaging.core.topology import Binding, Topology

__all__ = ["Confirm", "Death", "Delivery", "LinkState", "QueueDepth", "Subscription", "Transport", "TransportState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """One entry of the broker's `x-death` header: a claim about why a message left a queue."""

    queue: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """What a passive look at a queue tells: messages ready for delivery, and consumers."""

    messages: int
    consumers: int


class LinkState(Enum):
    """The state of the way to the broker."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BLOCKED = "blocked"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportState:
    """What health checks show.

    Attributes:
        link: The worst state of the connections.
        problem: One line with the remedy, when something is wrong.
        dropped_acks: Settlements that came too late for their channel; those messages are delivered again.
    """

    link: LinkState
    problem: str | None = None
    dropped_acks: int = 0


class Delivery(Protocol):
    """One message that arrived. Only `body` may come to be believed, and only after `security` verified it."""

    @property
    def body(self) -> bytes:
        """The bytes as they came."""

    @property
    def queue(self) -> str:
        """The queue it was read from."""

    @property
    def exchange(self) -> str:
        """The exchange of this hop; after a retry that of the rung's return."""

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""

    @property
    def message_id(self) -> str | None:
        """The AMQP property, unsigned."""

    @property
    def type(self) -> str | None:
        """The AMQP property, unsigned."""

    @property
    def attempt(self) -> int:
        """`x-attempt` when it is an int in 1…1000, else 1."""

    @property
    def first_failed_ms(self) -> int | None:
        """`x-first-failed` when it is a positive int, else None."""

    @property
    def redelivered(self) -> bool:
        """The broker's mark."""

    @property
    def delivery_count(self) -> int:
        """The broker's `x-delivery-count`: how often it came back. Feeds the crash fuse only.

        0 when absent, and on a first delivery whatever the header claims: a publisher can write it too.
        """

    @property
    def deaths(self) -> tuple[Death, ...]:
        """The broker's `x-death`, a claim."""

    def ack(self) -> None:
        """Settle: done with it."""

    def reject(self) -> None:
        """Give it back as a failure: the broker's count rises."""

    def give_back(self) -> None:
        """Give back what was never started."""

    async def forward(
        self, route: Route, *, attempt: int = 1, first_failed_ms: int | None = None, timeout_s: float
    ) -> None:
        """Publish the same bytes elsewhere, confirmed and with fresh headers; the delivery itself stays unsettled.

        Raises:
            UnroutableError: the route is mandatory and reaches no queue.
            PublishNotConfirmedError: refused, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: the transport is closed.
        """

    def sample(self, route: Route, *, limit_bytes: int) -> None:
        """Publish the first `limit_bytes` of the body elsewhere, without waiting and without any promise."""


class Subscription(Protocol):
    """A running consumer of one queue."""

    @property
    def queue(self) -> str:
        """The queue."""

    @property
    def is_live(self) -> bool:
        """Whether the broker is known to feed it now."""

    async def resize(self, prefetch: int) -> None:
        """Change the prefetch bound. A smaller one takes a fresh channel: what is unsettled returns to the queue."""

    async def cancel(self) -> None:
        """Stop deliveries; what is unsettled stays settleable until the transport closes. Twice is once."""

    async def release(self) -> None:
        """End it in one step: what was settled is said, what is unsettled returns in its order. Twice is once.

        It may have been cancelled before. Of a queue with a single active consumer the next one is fed only after that;
        `cancel` would let it overtake.
        """


class Confirm(Protocol):
    """Who is told what became of a publish: a future, or what does without the turn of the loop that one takes."""

    def done(self) -> bool:
        """Whether nobody waits for it any more."""

    def set_result(self, result: None, /) -> None:
        """Take that the broker has the message. It may be called inside the socket's read: it must not raise."""

    def set_exception(self, exception: Exception, /) -> None:
        """Take why the broker has it not, or may not have it. It must not raise either."""


class Transport(Protocol):
    """The way to the broker for one process."""

    @property
    def state(self) -> TransportState:
        """What health checks show."""

    async def connect(self) -> None:
        """Connect.

        Raises:
            ConnectionLostError: no broker within the connect timeout; the message names address and remedy.
            ConfigurationError: the broker refuses the credentials or the virtual host.
        """

    async def declare(self, topology: Topology) -> None:
        """Make exchanges, queues and bindings exist; remembered, and made again after each reconnect.

        Raises:
            TopologyConflictError: something exists with other arguments; the message shows both.
        """

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Take bindings away for good; those that are not there are fine."""

    def submit(self, sealed: Sealed, route: Route, label: Label, timeout_s: float, outcome: Confirm) -> None:
        """Publish, and tell `outcome` once the broker has confirmed, or what `publish` raises; it never raises itself.

        Whoever waits no longer does not take the message back.
        """

    def flush(self) -> None:
        """Write now what was submitted, where it would be written at the end of this turn of the event loop.

        It saves a turn to whoever knows that nothing more comes with it; it is never needed.
        """

    async def publish(self, sealed: Sealed, route: Route, label: Label, *, timeout_s: float) -> None:
        """Publish and return once the broker has confirmed.

        Raises:
            UnroutableError: the route is mandatory and reaches no queue.
            PublishNotConfirmedError: refused by the broker, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: the transport is closed.
            TopologyConflictError: there is no such exchange.
            MessageTooLargeError: the broker refuses messages of this size.
        """

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[], None] | None = None,
    ) -> Subscription:
        """Start a consumer. `on_delivery` only hands over: it must not block or raise. prefetch 0 means unbounded.

        `on_lost` is called when a channel is lost, before the next one delivers: what was not settled by then comes
        again, here or elsewhere.

        Raises:
            TopologyConflictError: the queue does not exist.
            ConnectionLostError: the transport is closed.
        """

    async def depth(self, queue: str) -> QueueDepth | None:
        """Return what waits in a queue, or None when there is no such queue."""

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold an exclusive name at the broker.

        Raises:
            TopologyConflictError: somebody else holds it.
        """

    async def aclose(self) -> None:
        """Stop deliveries, wait for confirms within bounds, close. Twice is once."""
