"""What a consumer of the memory transport sees: deliveries, and the subscription that they come through."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from messaging.core.sealed import Route
from messaging.transports.base import Death, Delivery
from messaging.transports.memory.link import MemoryLink
from messaging.transports.memory.parcel import Entry, Parcel
from messaging.transports.memory.queue import MemoryConsumer, Settlement

__all__ = ["MemoryDelivery", "MemorySubscription", "Outbound", "headers_of"]

# Deliveries handed over in one turn of the event loop: a backlog must not hold up everybody else.
HAND_OVER_MAX: Final = 256
ATTEMPT_MAX: Final = 1_000


class Outbound(Protocol):
    """What deliveries and subscriptions need of their transport."""

    async def send(self, parcel: Parcel, *, is_mandatory: bool, timeout_s: float) -> None:
        """Publish a parcel and return once it is confirmed."""

    def send_blindly(self, parcel: Parcel) -> None:
        """Publish a parcel without waiting."""

    async def round_trip(self) -> None:
        """Wait until the broker answers."""


class MemoryDelivery:
    """One message that arrived (`messaging.transports.base.Delivery`)."""

    __slots__ = ("_consumer", "_entry", "_is_settled", "_link", "_outbound")

    def __init__(self, entry: Entry, consumer: MemoryConsumer, link: MemoryLink, outbound: Outbound) -> None:
        self._entry = entry
        self._consumer = consumer
        self._link = link
        self._outbound = outbound
        self._is_settled = False

    @property
    def body(self) -> bytes:
        """The bytes as they came."""
        return self._entry.parcel.body

    @property
    def queue(self) -> str:
        """The queue it was read from."""
        return self._consumer.queue.name

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""
        return self._entry.parcel.exchange

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""
        return self._entry.parcel.routing_key

    @property
    def message_id(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._entry.parcel.message_id

    @property
    def type(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._entry.parcel.type

    @property
    def attempt(self) -> int:
        """`x-attempt` when it is an int in 1…1000, else 1."""
        claim = self._entry.parcel.headers.get("x-attempt")
        return claim if type(claim) is int and 1 <= claim <= ATTEMPT_MAX else 1

    @property
    def first_failed_ms(self) -> int | None:
        """`x-first-failed` when it is a positive int, else None."""
        claim = self._entry.parcel.headers.get("x-first-failed")
        return claim if type(claim) is int and claim > 0 else None

    @property
    def redelivered(self) -> bool:
        """The broker's mark."""
        return self._entry.redelivered

    @property
    def delivery_count(self) -> int:
        """How often it came back, in quorum queues."""
        return self._entry.delivery_count

    @property
    def deaths(self) -> tuple[Death, ...]:
        """Why it left queues before, the latest first."""
        return self._entry.parcel.deaths

    @property
    def is_current(self) -> bool:
        """Whether it is still this consumer's to settle."""
        return not self._is_settled and self._link.is_alive and self._consumer.is_open

    def ack(self) -> None:
        """Settle: done with it."""
        self._settle(Settlement.ACK)

    def reject(self) -> None:
        """Give it back as a failure: a quorum queue counts it."""
        self._settle(Settlement.REJECT)

    def give_back(self) -> None:
        """Give back what was never started."""
        self._settle(Settlement.GIVE_BACK)

    async def forward(
        self, route: Route, *, attempt: int = 1, first_failed_ms: int | None = None, timeout_s: float
    ) -> None:
        """Publish the same bytes elsewhere, confirmed and with fresh headers; the delivery itself stays unsettled.

        Raises:
            UnroutableError: The route is mandatory and reaches no queue.
            PublishNotConfirmedError: Refused, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: The transport is closed.
            TopologyConflictError: There is no such exchange.
        """
        parcel = self._copy(route, self.body, headers=headers_of(attempt, first_failed_ms))
        await self._outbound.send(parcel, is_mandatory=route.mandatory, timeout_s=timeout_s)

    def sample(self, route: Route, *, limit_bytes: int) -> None:
        """Publish the first `limit_bytes` of the body elsewhere, without waiting and without any promise."""
        self._outbound.send_blindly(self._copy(route, self.body[:limit_bytes], headers={}))

    def _copy(self, route: Route, body: bytes, *, headers: dict[str, object]) -> Parcel:
        return Parcel(
            body=body,
            exchange=route.exchange,
            routing_key=route.routing_key,
            message_id=self.message_id,
            type=self.type,
            headers=headers,
            expiration_ms=route.expiration_ms,
        )

    def _settle(self, how: Settlement) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._link.settle(self._consumer, self._entry, how)


class MemorySubscription:
    """A running consumer of one queue (`messaging.transports.base.Subscription`).

    Args:
        queue: The queue.
        on_delivery: Takes each delivery, by a turn of the event loop of its own.
        prefetch: Bound of unsettled deliveries; 0 is none.
        outbound: The transport that it belongs to.
        on_lost: Told of each channel that was lost.
    """

    def __init__(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        outbound: Outbound,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._queue = queue
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._prefetch = prefetch
        self._outbound = outbound
        self._link: MemoryLink | None = None
        self._consumer: MemoryConsumer | None = None
        self._arrived: deque[MemoryDelivery] = deque()
        self._is_handing_over = False
        self._is_stopped = False

    @property
    def queue(self) -> str:
        """The queue."""
        return self._queue

    @property
    def is_live(self) -> bool:
        """Whether the broker feeds it now."""
        is_linked = self._link is not None and self._link.is_alive
        return is_linked and self._consumer is not None and self._consumer.is_fed

    @property
    def is_stopped(self) -> bool:
        """Whether it was cancelled."""
        return self._is_stopped

    def attach(self, link: MemoryLink) -> None:
        """Consume through this link from now on. A cancelled subscription stays cancelled.

        Raises:
            TopologyConflictError: The queue does not exist.
        """
        if self._is_stopped:
            return
        if self._consumer is not None and self._on_lost is not None:
            self._on_lost()
        self._link = link
        self._consumer = link.consume(self._queue, self._arrive, prefetch=self._prefetch)

    async def resize(self, prefetch: int) -> None:
        """Change the prefetch bound. A smaller one takes a fresh channel: what is unsettled returns to the queue."""
        await self._outbound.round_trip()
        is_wider = _room(prefetch) >= _room(self._prefetch)
        self._prefetch = prefetch
        if not self.is_live or self._link is None or self._consumer is None:
            return
        if is_wider:
            self._link.widen(self._consumer, prefetch)
        else:
            self._link.close(self._consumer)
            self.attach(self._link)

    async def cancel(self) -> None:
        """Stop deliveries; what is unsettled stays settleable until the transport closes. Twice is once."""
        self.stop()
        await self._outbound.round_trip()

    async def release(self) -> None:
        """End it in one step: what is unsettled returns in its order, and then the next consumer is fed."""
        self._is_stopped = True
        self._arrived.clear()
        if self._link is not None and self._link.is_alive and self._consumer is not None and self._consumer.is_open:
            self._link.close(self._consumer)
        await self._outbound.round_trip()

    def stop(self) -> None:
        """Stop deliveries at once, and give back those that were on their way."""
        if self._is_stopped:
            return
        is_live, self._is_stopped = self.is_live, True
        if is_live and self._link is not None and self._consumer is not None:
            self._link.stop(self._consumer)
        while self._arrived:
            delivery = self._arrived.popleft()
            if delivery.is_current:
                delivery.give_back()

    def _arrive(self, consumer: MemoryConsumer, entry: Entry) -> None:
        if self._link is None:
            return
        self._arrived.append(MemoryDelivery(entry, consumer, self._link, self._outbound))
        if not self._is_handing_over:
            self._is_handing_over = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        for _ in range(min(len(self._arrived), HAND_OVER_MAX)):
            delivery = self._arrived.popleft()
            # What came through a link or channel that has ended since is back in the queue.
            if delivery.is_current:
                self._on_delivery(delivery)
            if not self._arrived:
                break
        self._is_handing_over = bool(self._arrived)
        if self._is_handing_over:
            asyncio.get_running_loop().call_soon(self._hand_over)


def headers_of(attempt: int, first_failed_ms: int | None) -> dict[str, object]:
    """Return the AMQP headers of an attempt: none at all for a first one."""
    headers: dict[str, object] = {}
    if attempt > 1:
        headers["x-attempt"] = attempt
    if first_failed_ms is not None:
        headers["x-first-failed"] = first_failed_ms
    return headers


def _room(prefetch: int) -> float:
    return prefetch if prefetch > 0 else math.inf
