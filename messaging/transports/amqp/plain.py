"""The plain channel: everything through aiormq's channel below aio-pika's (`get_underlay_channel`).

It is what remains where the fast one cannot be had or is not wanted. When the broker closes a busy channel, aiormq goes
on writing for a moment, which alone would lose the whole connection; `channel_numbers` drops it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiormq
from aiormq.exceptions import DeliveryError, PublishError

from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.connection import close_channel
from messaging.transports.amqp.errors import CLIENT_ERRORS, OutcomeUnknownError
from messaging.transports.amqp.intake import Intake
from messaging.transports.amqp.outcomes import fail, refused, unroutable, unwritable
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How, Settlement, Settlements
from messaging.transports.amqp.tasks import asked, end
from messaging.transports.base import Confirm

__all__ = ["PlainChannel"]


class PlainChannel:
    """A channel through aiormq.

    Attributes:
        gone: Done with a one-line reason once the channel, or the consumer on it, is of no more use.
    """

    def __init__(self, channel: aiormq.Channel) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._intake = Intake(channel, self.give_up)
        self._closed_by: BaseException | None = None
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._settlements = Settlements()
        self._unsaid: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        channel.closing.add_done_callback(self._on_closing)

    @property
    def is_closed(self) -> bool:
        """Whether the channel is gone."""
        return self._is_closed or self._channel.is_closed

    @property
    def is_consuming(self) -> bool:
        """Whether aiormq still knows our consumer."""
        return not self.is_closed and self._intake.is_known

    @property
    def unsaid_settlements(self) -> int:
        """How many deliveries were settled without the broker being told; once the channel is gone, for good."""
        return sum(frame.covers for frame in self._unsaid) + len(self._settlements)

    # Publishing.

    def publish(self, parcel: Parcel) -> asyncio.Future[None]:
        """Send a message and return the future of its confirm; see `send`."""
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.send(parcel, confirm)
        return confirm

    def send(self, parcel: Parcel, confirm: Confirm) -> None:
        """Send a message.

        Its confirm fails with `UnroutableError`, with `PublishNotConfirmedError` when the broker refused it, or with
        `OutcomeUnknownError` when the channel went first.
        """
        task = self._own(self._publish(parcel, confirm))
        # A task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(partial(self._untold, confirm))

    def _untold(self, confirm: Confirm, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            fail(confirm, OutcomeUnknownError(self._closed_by))

    async def _publish(self, parcel: Parcel, confirm: Confirm) -> None:
        try:
            await asked(
                self._channel.basic_publish(
                    parcel.body,
                    exchange=parcel.route.exchange,
                    routing_key=parcel.route.routing_key,
                    properties=parcel.properties,
                    mandatory=parcel.route.mandatory,
                    wait=False,
                )
            )
        except CLIENT_ERRORS as error:
            fail(confirm, self._outcome(parcel, error))
        else:
            if not confirm.done():
                confirm.set_result(None)

    def _outcome(self, parcel: Parcel, error: Exception) -> Exception:
        match error:
            case PublishError():
                return unroutable(parcel)
            case DeliveryError():
                return refused(parcel)
            case ValueError() | TypeError() | UnicodeError():
                return unwritable(parcel, error)
            case _:
                return OutcomeUnknownError(self._closed_by or error)

    # Consuming.

    def flush(self) -> None:
        """Do nothing: aiormq has a queue of its own before the socket."""

    async def consume(self, queue: str, on_message: Callable[[Message], None], *, prefetch: int, tag: str) -> None:
        """Start a consumer; `on_message` is called with each message, in order.

        Raises:
            Exception: What the client raises; the broker has closed the channel then.
        """
        await self._intake.start(queue, on_message, prefetch=prefetch, tag=tag)

    async def cancel(self) -> None:
        """Stop deliveries; what arrived can still be settled."""
        if not self.is_closed:
            await self._intake.stop()

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
            await self._intake.round_trip()

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
