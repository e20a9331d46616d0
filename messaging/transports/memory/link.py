"""One connection of a transport to the memory broker: what is lost together when it ends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from messaging.errors import MessagingError, TopologyConflictError
from messaging.transports.memory.broker import MemoryBroker, Receipt
from messaging.transports.memory.parcel import Entry, Parcel
from messaging.transports.memory.queue import Deliver, MemoryConsumer, Settlement

__all__ = ["LinkEndedError", "MemoryLink"]


class LinkEndedError(MessagingError):
    """The link ended before the confirm came: the outcome is unknown, the publish may be repeated on the next one."""

    transient = True


class MemoryLink:
    """A connection: publishes and their confirms, consumers and their settlements, locks.

    Args:
        broker: Where it leads.
        now_ms: The clock of whoever connects; the broker is told the time with everything that is sent.
        on_dropped: Called for each settlement that came too late.
    """

    def __init__(self, broker: MemoryBroker, *, now_ms: Callable[[], int], on_dropped: Callable[[], None]) -> None:
        self.is_alive = True
        self.unconfirmed: set[asyncio.Future[Receipt]] = set()
        self._broker = broker
        self._now_ms = now_ms
        self._on_dropped = on_dropped
        self._consumers: set[MemoryConsumer] = set()

    def publish(self, parcel: Parcel) -> "asyncio.Future[Receipt]":
        """Send a parcel; the future is its confirm, which comes later than this call.

        The future fails with `TopologyConflictError` when there is no such exchange, and with the error of `end`.
        """
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.unconfirmed.add(future)
        future.add_done_callback(self.unconfirmed.discard)
        self._send(lambda: self._route(parcel, future))
        return future

    def publish_blindly(self, parcel: Parcel) -> None:
        """Send a parcel, whatever becomes of it."""
        self._send(lambda: self._route(parcel, None))

    def consume(self, queue: str, deliver: Deliver, *, prefetch: int) -> MemoryConsumer:
        """Open a consumer on this link.

        Raises:
            TopologyConflictError: There is no such queue.
        """
        self._broker.observe(self._now_ms())
        consumer = self._broker.consume(queue, deliver, prefetch=prefetch)
        self._consumers = {other for other in self._consumers if other.is_fed or other.unsettled}
        self._consumers.add(consumer)
        return consumer

    def settle(self, consumer: MemoryConsumer, entry: Entry, how: Settlement) -> None:
        """Send a settlement; when the link or the consumer's channel is gone, it is counted and dropped."""
        if self.is_alive and consumer.is_open:
            self._send(lambda: consumer.queue.settle(consumer, entry, how))
        else:
            self._on_dropped()

    def widen(self, consumer: MemoryConsumer, prefetch: int) -> None:
        """Give a consumer more room."""
        self._send(lambda: consumer.queue.widen(consumer, prefetch))

    def stop(self, consumer: MemoryConsumer) -> None:
        """Have the consumer fed no more; what it holds can still be settled."""
        self._send(lambda: consumer.queue.stop(consumer))

    def close(self, consumer: MemoryConsumer) -> None:
        """Close the consumer's channel: what it holds comes back."""
        self._consumers.discard(consumer)
        self._send(lambda: consumer.queue.close(consumer))

    def end(self, error: MessagingError) -> None:
        """End the link: what is unconfirmed fails with the error, what is unsettled returns, locks are free."""
        self.is_alive = False
        for future in list(self.unconfirmed):
            if not future.done():
                future.set_exception(error)
        self._send(self._leave)

    def _send(self, act: Callable[[], None]) -> None:
        self._broker.observe(self._now_ms())
        self._broker.submit(act)

    def _route(self, parcel: Parcel, future: "asyncio.Future[Receipt] | None") -> None:
        if future is None:
            with suppress(TopologyConflictError):
                self._broker.publish(parcel)
            return
        loop = asyncio.get_running_loop()
        try:
            receipt = self._broker.publish(parcel)
        except TopologyConflictError as error:
            loop.call_soon(_fail, future, error)
        else:
            loop.call_soon(_confirm, future, receipt)

    def _leave(self) -> None:
        consumers, self._consumers = self._consumers, set()
        for consumer in consumers:
            consumer.queue.close(consumer)
        self._broker.release(self)


def _confirm(future: "asyncio.Future[Receipt]", receipt: Receipt) -> None:
    if not future.done():
        future.set_result(receipt)


def _fail(future: "asyncio.Future[Receipt]", error: MessagingError) -> None:
    if not future.done():
        future.set_exception(error)
