"""One channel's run of deliveries: hands them over, counts what is unsettled, holds back what is beyond the bound.

The broker keeps the bound itself, but for the moment after a consumer grew: what the smaller one had is still unsettled
while the larger one fills up. So the bound is kept here as well.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from messaging.core.ambient import Ambient
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.channel import Channel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.delivery import AmqpDelivery, Outlet
from messaging.transports.amqp.link import Link
from messaging.transports.amqp.settlements import How
from messaging.transports.base import Delivery

__all__ = ["Feed", "Surroundings", "Taker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a subscription needs of its transport.

    Attributes:
        link: The connection for consuming.
        ambient: Clock and ids.
        outlet: Where deliveries publish what they move.
        declare: Makes the remembered topology exist again.
        consumers_of: How many live subscriptions of ours read a queue.
        note_dropped: Counts settlements that came too late.
        start_timeout_s: How long a first start may take, seconds; None means as long as it takes.
        check_s: Seconds between looks at tag, channel and connection.
        count_s: Seconds between looks at the broker's count of consumers.
    """

    link: Link
    ambient: Ambient
    outlet: Outlet
    declare: Callable[[Connection], Awaitable[None]]
    consumers_of: Callable[[str], int]
    note_dropped: Callable[[int], None]
    start_timeout_s: float | None = None
    check_s: float = 5.0
    count_s: float = 30.0


class Taker(Protocol):
    """Who gets the deliveries."""

    @property
    def queue(self) -> str:
        """The queue they come from."""

    @property
    def prefetch(self) -> int:
        """Bound on unsettled deliveries; 0 means unbounded."""

    @property
    def on_delivery(self) -> Callable[[Delivery], None]:
        """Called with each."""


class Feed:
    """One channel's run of deliveries.

    Args:
        channel: The channel.
        taker: Who gets them.
        around: What it needs of its transport.
    """

    def __init__(self, channel: Channel, taker: Taker, around: Surroundings) -> None:
        self.channel = channel
        self.delivered_s = around.ambient.monotonic_s()
        self.unsettled = 0
        self.is_stopped = False
        self._is_released = False
        self._taker = taker
        self._around = around
        self._held: deque[AmqpDelivery] = deque()

    def take(self, message: Message) -> None:
        """Hand a message over, or hold it until there is room."""
        self.delivered_s = self._around.ambient.monotonic_s()
        delivery = AmqpDelivery(message, self._taker.queue, self._settle, self._around.outlet)
        if self.is_stopped:
            # Handed over to nobody: it returns to the queue at once or with the channel.
            if not self._is_released:
                self.channel.settle(message.delivery_tag, How.GIVE_BACK)
            return
        if not self._held and (self.unsettled < self._taker.prefetch or not self._taker.prefetch):
            # Nobody waits before it and there is room: the usual case.
            self.unsettled += 1
            self._taker.on_delivery(delivery)
            return
        self._held.append(delivery)
        self.hand_over()

    def hand_over(self) -> None:
        """Hand over what is held and fits. A consumer that grew may bring more than its bound for a moment."""
        prefetch = self._taker.prefetch
        while self._held and not self.is_stopped and (prefetch == 0 or self.unsettled < prefetch):
            self.unsettled += 1
            self._taker.on_delivery(self._held.popleft())

    def stop(self) -> None:
        """Hand over nothing more, and give back what is held."""
        self.is_stopped = True
        while self._held:
            self._held.popleft().give_back()

    def release(self) -> None:
        """Hand over nothing more, and leave what is held to the end of the channel: it returns in its order."""
        self.is_stopped = self._is_released = True
        self._held.clear()

    async def aclose(self) -> None:
        """Close the channel; the broker delivers again what is unsettled."""
        self.is_stopped = True
        self._held.clear()
        await self.channel.aclose()
        self._around.note_dropped(self.channel.unsaid_settlements)

    def _settle(self, tag: int, how: How) -> None:
        if not self.channel.settle(tag, how):
            self._around.note_dropped(1)
        self.unsettled -= 1
        if self._held:
            self.hand_over()
