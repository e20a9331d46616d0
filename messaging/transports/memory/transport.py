"""`MemoryTransport`: the way to a `MemoryBroker` in the same process.

It keeps every promise of `messaging.transports.base` (`tests/transports/conformance.py` runs on it as on RabbitMQ), the
awkward ones included: a confirm comes later than the call, a delivery comes by the event loop, never out of another's
stack, and a settlement that comes too late is counted and dropped.

    broker = MemoryBroker()
    transport = MemoryTransport(broker, ambient=real_ambient())
    await transport.connect()
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from uuid import UUID

from messaging.core.ambient import Ambient
from messaging.core.sealed import Label, Route, Sealed
from messaging.core.topology import Binding, Topology
from messaging.errors import (
    ConnectionLostError,
    MessageTooLargeError,
    MessagingError,
    PublishNotConfirmedError,
    TopologyConflictError,
    UnroutableError,
)
from messaging.transports.base import Confirm, Delivery, LinkState, QueueDepth, TransportState
from messaging.transports.deadlines import Deadlines
from messaging.transports.memory.broker import MemoryBroker, Receipt
from messaging.transports.memory.consumer import MemorySubscription, headers_of
from messaging.transports.memory.link import LinkEndedError, MemoryLink
from messaging.transports.memory.parcel import Parcel

__all__ = ["MemoryTransport"]

# A close waits so long for confirms that are under way, seconds.
CLOSE_TIMEOUT_S: Final = 5.0


class MemoryTransport:
    """A transport to a broker in this process.

    Args:
        broker: The broker; any number of transports may share one.
        ambient: The clock that drives delays and lives of messages.
    """

    def __init__(self, broker: MemoryBroker, *, ambient: Ambient) -> None:
        self.broker = broker
        self._ambient = ambient
        self._link: MemoryLink | None = None
        self._linked = asyncio.Event()
        self._was_connected = False
        self._is_closing = False
        self._closed = asyncio.Event()
        self._declared = Topology()
        self._subscriptions: list[MemorySubscription] = []
        self._dropped_acks = 0
        self._problem: str | None = None
        self._deadlines = Deadlines()
        self._publishing: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> TransportState:
        """What health checks show."""
        if self._closed.is_set():
            link = LinkState.CLOSED
        else:
            link = LinkState.CONNECTING if self._link is None else LinkState.CONNECTED
        return TransportState(link=link, problem=self._problem, dropped_acks=self._dropped_acks)

    async def connect(self) -> None:
        """Connect. Twice is once.

        Raises:
            ConnectionLostError: The transport was closed.
        """
        if self._is_closing:
            raise ConnectionLostError("the transport is closed; make a new one")
        await self.broker.round_trip()
        if not self._was_connected:
            self._was_connected = True
            self.broker.observe(self._ambient.now_ms())
            self._open_link()

    async def declare(self, topology: Topology) -> None:
        """Make exchanges, queues and bindings exist; remembered for a link that breaks.

        Raises:
            TopologyConflictError: Something exists with other arguments; the message shows both.
            ConnectionLostError: The transport is closed or was never connected.
        """
        await self._reached()
        self.broker.declare(topology)
        self._declared += topology

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Take bindings away for good; those that are not there are fine.

        Raises:
            ConnectionLostError: The transport is closed or was never connected.
        """
        await self._reached()
        gone = set(bindings)
        for binding in gone:
            self.broker.unbind(binding)
        self._declared = self._declared.without(gone)

    def flush(self) -> None:
        """Do nothing: what is submitted is at the broker already."""

    def submit(self, sealed: Sealed, route: Route, label: Label, timeout_s: float, outcome: Confirm) -> None:
        """Publish, and tell `outcome` once the broker has confirmed, or what `publish` raises."""
        # Links come and go under one publish, so it is a course of events, and a task.
        publish = partial(self.publish, sealed, route, label, timeout_s=timeout_s)
        task = asyncio.get_running_loop().create_task(_told(outcome, publish))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def publish(self, sealed: Sealed, route: Route, label: Label, *, timeout_s: float) -> None:
        """Publish and return once the broker has confirmed.

        Raises:
            UnroutableError: The route is mandatory and reaches no queue.
            PublishNotConfirmedError: Refused by a full queue, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: The transport is closed or was never connected.
            TopologyConflictError: There is no such exchange.
            MessageTooLargeError: The broker refuses messages of this size.
        """
        parcel = Parcel(
            body=sealed,
            exchange=route.exchange,
            routing_key=route.routing_key,
            message_id=label.message_id,
            type=label.type,
            headers=headers_of(label.attempt, label.first_failed_ms),
            expiration_ms=route.expiration_ms,
        )
        await self.send(parcel, is_mandatory=route.mandatory, timeout_s=timeout_s)

    async def send(self, parcel: Parcel, *, is_mandatory: bool, timeout_s: float) -> None:
        """Publish a parcel and return once it is confirmed; raises what `publish` does."""
        if len(parcel.body) > self.broker.body_max_bytes:
            raise MessageTooLargeError(
                f"the broker takes bodies of at most {self.broker.body_max_bytes} bytes and this one has "
                f"{len(parcel.body)}; send less, or a reference to where it is stored"
            )
        try:
            with self._deadlines.of_task(timeout_s):
                receipt = await self._confirmed(parcel)
        except TimeoutError as exc:
            raise PublishNotConfirmedError(
                f"no confirm for {parcel.routing_key!r} within {timeout_s} s, so its outcome is unknown; "
                "repeat it with the same message id",
                message_id=_id_of(parcel),
            ) from exc
        _check(receipt, parcel, is_mandatory=is_mandatory)

    def send_blindly(self, parcel: Parcel) -> None:
        """Publish a parcel without waiting, whatever becomes of it."""
        if self._link is not None:
            self._link.publish_blindly(parcel)

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[], None] | None = None,
    ) -> MemorySubscription:
        """Start a consumer; prefetch 0 means unbounded.

        Raises:
            TopologyConflictError: The queue does not exist.
            ConnectionLostError: The transport is closed or was never connected.
        """
        link = await self._reached()
        subscription = MemorySubscription(queue, on_delivery, prefetch=prefetch, outbound=self, on_lost=on_lost)
        subscription.attach(link)
        self._subscriptions = [other for other in self._subscriptions if not other.is_stopped]
        self._subscriptions.append(subscription)
        return subscription

    async def depth(self, queue: str) -> QueueDepth | None:
        """Return what waits in a queue, or None when there is no such queue.

        Raises:
            ConnectionLostError: The transport is closed or was never connected.
        """
        await self._reached()
        return self.broker.depth(queue)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Hold an exclusive name at the broker.

        Raises:
            TopologyConflictError: Somebody holds it, be it this transport.
            ConnectionLostError: The transport is closed or was never connected.
        """
        link = await self._reached()
        self.broker.acquire(name, link)
        try:
            yield
        finally:
            self.broker.release(link, name)

    async def round_trip(self) -> None:
        """Wait until the broker answers."""
        await self.broker.round_trip()

    async def aclose(self) -> None:
        """Stop deliveries, wait for confirms within bounds, close: what is unsettled returns. Twice is once."""
        if self._is_closing:
            await self._closed.wait()
            return
        self._is_closing = True
        try:
            for subscription in self._subscriptions:
                subscription.stop()
            if self._link is not None and self._link.unconfirmed:
                await asyncio.wait(list(self._link.unconfirmed), timeout=CLOSE_TIMEOUT_S)
        finally:
            self._end()

    def kill(self) -> None:
        """Crash: what is unsettled returns and counts, nothing is waited for, nothing comes back. For tests."""
        self._is_closing = True
        self._end()

    def cut(self) -> None:
        """Lose the link, then mend it: declare again, consume again, re-send what was unconfirmed. For tests."""
        if self._is_closing or self._link is None:
            return
        link, self._link = self._link, None
        self._linked.clear()
        link.end(LinkEndedError("the link was cut"))
        # As over a network, there is a moment without any link.
        asyncio.get_running_loop().call_soon(self.broker.submit, self._mend)

    # The link.

    async def _reached(self) -> MemoryLink:
        """Wait until there is a link and the broker answers."""
        link = await self._current()
        await self.broker.round_trip()
        self.broker.observe(self._ambient.now_ms())
        return link if link.is_alive else await self._current()

    async def _current(self) -> MemoryLink:
        """Return the link, or wait until it is mended.

        Raises:
            ConnectionLostError: The transport is closed or was never connected.
        """
        if not self._was_connected:
            raise ConnectionLostError("the transport is not connected; call connect() first")
        await self._linked.wait()
        if self._link is None:
            raise ConnectionLostError("the transport is closed; make a new one")
        return self._link

    async def _confirmed(self, parcel: Parcel) -> Receipt:
        """Send until a confirm comes: on each new link again, with the same bytes."""
        if self._is_closing:
            raise ConnectionLostError("the transport is closing; make a new one")
        while True:
            link = await self._current()
            try:
                return await link.publish(parcel)
            except LinkEndedError:
                continue

    def _open_link(self) -> MemoryLink:
        self._link = MemoryLink(self.broker, now_ms=self._ambient.now_ms, on_dropped=self._count_dropped)
        self._linked.set()
        return self._link

    def _mend(self) -> None:
        if self._is_closing:
            return
        link = self._open_link()
        self._problem = None
        repairs = [partial(self.broker.declare, self._declared)]
        repairs += [partial(subscription.attach, link) for subscription in self._subscriptions]
        for repair in repairs:
            try:
                repair()
            except TopologyConflictError as error:
                self._problem = str(error)

    def _end(self) -> None:
        link, self._link = self._link, None
        # Whoever waits for a link is told that none will come.
        self._linked.set()
        self._closed.set()
        if link is not None:
            link.end(ConnectionLostError("the transport was closed before the confirm came; the outcome is unknown"))

    def _count_dropped(self) -> None:
        self._dropped_acks += 1


async def _told(outcome: Confirm, publish: Callable[[], Awaitable[None]]) -> None:
    try:
        await publish()
    except MessagingError as error:
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(None)


def _check(receipt: Receipt, parcel: Parcel, *, is_mandatory: bool) -> None:
    """Raise what the receipt means for the caller."""
    if is_mandatory and not receipt.is_routed:
        raise UnroutableError(
            f"no queue is bound to {parcel.routing_key!r} at exchange {parcel.exchange!r}: nobody handles it; "
            "start the service that does, or correct the name",
            routing_key=parcel.routing_key,
        )
    if receipt.refused_by:
        raise PublishNotConfirmedError(
            f"queue {', '.join(receipt.refused_by)} is full and refuses {parcel.routing_key!r}; "
            "let its consumers catch up, then repeat it",
            message_id=_id_of(parcel),
            refused=True,
        )


def _id_of(parcel: Parcel) -> UUID | None:
    """Return the message id as an id, or None when the property is none."""
    try:
        return UUID(parcel.message_id)
    except (TypeError, ValueError):
        return None
