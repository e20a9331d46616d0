"""The consumer on one aiormq channel: started, stopped, and told of when the broker stops it."""

from collections.abc import Callable
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage

from messaging.transports.amqp.arrival import Message, Received
from messaging.transports.amqp.connection import RPC_TIMEOUT_S
from messaging.transports.amqp.tasks import asked

__all__ = ["Intake"]


class Intake:
    """At most one consumer of a channel.

    Args:
        channel: The channel.
        on_cancelled: Called with the reason when the broker ends the consumer.
    """

    def __init__(self, channel: aiormq.Channel, on_cancelled: Callable[[str], None]) -> None:
        self._channel = channel
        self._on_cancelled = on_cancelled
        self._tag: str | None = None
        self._prefetch = 0

    @property
    def is_known(self) -> bool:
        """Whether aiormq still knows our consumer."""
        return self._tag is not None and self._tag in self._channel.consumers

    async def start(self, queue: str, on_message: Callable[[Message], None], *, prefetch: int, tag: str) -> None:
        """Start it.

        Raises:
            Exception: What the client raises; the broker has closed the channel then.
        """
        self._prefetch = prefetch
        self._tag = tag
        self._channel.on_consumer_cancel_callbacks.add(self._on_broker_cancel)

        async def hand_over(message: DeliveredMessage) -> None:
            on_message(Received(message))

        await asked(self._channel.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT_S))
        await asked(self._channel.basic_consume(queue, hand_over, consumer_tag=tag, timeout=RPC_TIMEOUT_S))

    async def stop(self) -> None:
        """Stop deliveries; what arrived can still be settled."""
        tag, self._tag = self._tag, None
        if tag is not None and not self._channel.is_closed:
            await asked(self._channel.basic_cancel(tag, timeout=RPC_TIMEOUT_S))

    async def round_trip(self) -> None:
        """Return once the broker has read everything that was written before."""
        await asked(self._channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT_S))

    def _on_broker_cancel(self, frame: Any) -> None:
        if frame.consumer_tag == self._tag:
            self._on_cancelled("the broker cancelled the consumer: the queue was deleted or moved")
