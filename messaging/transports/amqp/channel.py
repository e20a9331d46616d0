"""One channel behind three verbs: `publish` returns a future, `consume` hands over by plain calls, `settle` acks.

This is the plain way, through aiormq's channel below aio-pika's (`get_underlay_channel`). A faster one may stand beside
it behind the same methods. Rules:

- Nothing waits for a confirm but the future that stands for it.
- When the channel goes, every open future fails with `OutcomeUnknownError` and the broker's reason, in the same tick.
- Before we close a channel ourselves, nothing may be left to write: a frame after Close ends the whole connection.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError, PublishError

from messaging.errors import PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp.connection import RPC_TIMEOUT_S, Connection, close_channel
from messaging.transports.amqp.errors import CLIENT_ERRORS, OutcomeUnknownError
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How, Settlement, Settlements
from messaging.transports.amqp.tasks import asked, end

__all__ = ["PlainChannel"]


class PlainChannel:
    """A channel through aiormq.

    Attributes:
        gone: Done with a one-line reason once the channel, or the consumer on it, is of no more use.
    """

    def __init__(self, channel: aiormq.Channel) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._consumer_tag: str | None = None
        self._prefetch = 0
        self._closed_by: BaseException | None = None
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._settlements = Settlements()
        self._unsaid: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        channel.closing.add_done_callback(self._on_closing)

    @classmethod
    async def open(cls, connection: Connection, *, confirms: bool) -> Self:
        """Open a channel.

        Raises:
            ConnectionLostError: The connection is gone or does not answer.
        """
        return cls(await connection.open_channel(confirms=confirms))

    @property
    def is_closed(self) -> bool:
        """Whether the channel is gone."""
        return self._is_closed or self._channel.is_closed

    @property
    def is_consuming(self) -> bool:
        """Whether aiormq still knows our consumer."""
        return not self.is_closed and self._consumer_tag in self._channel.consumers

    @property
    def unsaid_settlements(self) -> int:
        """How many deliveries were settled without the broker being told; once the channel is gone, for good."""
        return sum(frame.covers for frame in self._unsaid) + len(self._settlements)

    # Publishing.

    def publish(self, parcel: Parcel) -> asyncio.Future[None]:
        """Send a message and return the future of its confirm.

        The future fails with `UnroutableError`, with `PublishNotConfirmedError` when the broker refused it, or with
        `OutcomeUnknownError` when the channel went first.
        """
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._own(self._publish(parcel, confirm))
        # A task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: _fail(confirm, OutcomeUnknownError(self._closed_by)))
        return confirm

    async def _publish(self, parcel: Parcel, confirm: asyncio.Future[None]) -> None:
        try:
            await asked(
                self._channel.basic_publish(
                    parcel.body,
                    exchange=parcel.exchange,
                    routing_key=parcel.routing_key,
                    properties=parcel.properties,
                    mandatory=parcel.mandatory,
                    wait=False,
                )
            )
        except CLIENT_ERRORS as error:
            _fail(confirm, self._outcome(parcel, error))
        else:
            if not confirm.done():
                confirm.set_result(None)

    def _outcome(self, parcel: Parcel, error: Exception) -> Exception:
        match error:
            case PublishError():
                return UnroutableError(
                    f"nobody handles routing key {parcel.routing_key!r} of exchange {parcel.exchange!r}; "
                    "start the service that does, or check the name",
                    routing_key=parcel.routing_key,
                )
            case DeliveryError():
                return PublishNotConfirmedError(
                    f"the broker refused a message for {parcel.routing_key!r}: a queue is full or cannot store it; "
                    "see its length and the broker's log",
                    refused=True,
                )
            case ValueError() | TypeError() | UnicodeError():
                return PublishNotConfirmedError(
                    f"routing key {parcel.routing_key[:80]!r} or a property cannot be written as AMQP: {error}",
                    refused=True,
                )
            case _:
                return OutcomeUnknownError(self._closed_by or error)

    # Consuming.

    async def consume(
        self, queue: str, on_message: Callable[[DeliveredMessage], None], *, prefetch: int, tag: str
    ) -> None:
        """Start a consumer; `on_message` is called with each message, in order.

        Raises:
            Exception: What the client raises; the broker has closed the channel then.
        """
        self._prefetch = prefetch
        self._consumer_tag = tag
        self._channel.on_consumer_cancel_callbacks.add(self._on_broker_cancel)

        async def hand_over(message: DeliveredMessage) -> None:
            on_message(message)

        await asked(self._channel.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT_S))
        await asked(self._channel.basic_consume(queue, hand_over, consumer_tag=tag, timeout=RPC_TIMEOUT_S))

    async def cancel(self) -> None:
        """Stop deliveries; what arrived can still be settled."""
        tag, self._consumer_tag = self._consumer_tag, None
        if tag is not None and not self.is_closed:
            await asked(self._channel.basic_cancel(tag, timeout=RPC_TIMEOUT_S))

    def settle(self, tag: int, how: How) -> bool:
        """Tell the broker what happened to a delivery; False when the channel is gone and it cannot be told."""
        if self.is_closed:
            return False
        self._settlements.add(tag, how)
        if self._settling is None:
            # It runs in the next tick, so everything that this one settles goes out together.
            self._settling = self._own(self._settle_all())
        return True

    async def _settle_all(self) -> None:
        try:
            while self._unsaid or len(self._settlements):
                self._unsaid += self._settlements.take()
                while self._unsaid:
                    await self._settle(self._unsaid[0])
                    del self._unsaid[0]
        except CLIENT_ERRORS as error:
            # The broker delivers those messages again.
            self.give_up(str(error) or type(error).__name__)
        finally:
            self._settling = None

    async def _settle(self, settlement: Settlement) -> None:
        tag = settlement.tag
        match settlement.how:
            case How.ACK:
                await self._channel.basic_ack(tag, multiple=settlement.multiple, wait=False)
            case How.REJECT:
                await self._channel.basic_reject(tag, requeue=True, wait=False)
            case How.GIVE_BACK:
                await self._channel.basic_nack(tag, requeue=True, wait=False)

    async def settled(self) -> None:
        """Return once the broker has read every settlement: it answers a question that was asked after them."""
        if self._settling is not None:
            await asyncio.wait({self._settling})
        if not self.is_closed:
            await asked(self._channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT_S))

    # Ending.

    def give_up(self, reason: str) -> None:
        """Declare the channel useless, so that its owner replaces it."""
        if not self.gone.done():
            self.gone.set_result(reason)

    async def aclose(self) -> None:
        """Close the channel within bounds. Futures that are still open fail with an unknown outcome."""
        self._end(None, "closed")
        await end(self._tasks)
        await close_channel(self._channel)

    def _on_broker_cancel(self, frame: Any) -> None:
        if frame.consumer_tag == self._consumer_tag:
            self.give_up("the broker cancelled the consumer: the queue was deleted or moved")

    def _on_closing(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._end(error, str(error) if isinstance(error, Exception) and str(error) else "the channel was closed")
        # aiormq leaves publishes for ever that wait for room in a dead connection's queue.
        for task in tuple(self._tasks):
            task.cancel()

    def _end(self, error: BaseException | None, reason: str) -> None:
        self._is_closed = True
        self._closed_by = self._closed_by or error
        self.give_up(reason)

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _fail(confirm: asyncio.Future[None], error: Exception) -> None:
    if not confirm.done():
        confirm.set_exception(error)
