"""`Wiretap`: what somebody sees who holds the broker: a copy of every command, as the bytes that pass through it."""

import asyncio
from typing import Final

from messaging.core.topology import Binding, Queue, Topology
from messaging.transports.base import Delivery, Transport

__all__ = ["Wiretap"]

# It goes by itself when the demo could not take it away.
_EXPIRES_MS: Final = 60_000


class Wiretap:
    """Copies of messages from one exchange.

    Args:
        transport: A connected transport.
        exchange: Whose messages to copy.
        queue: Name of the queue for the copies.
    """

    def __init__(self, transport: Transport, *, exchange: str, queue: str) -> None:
        self._transport = transport
        self._exchange = exchange
        self._queue = queue
        self._bodies: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def attach(self) -> None:
        """Start copying."""
        topology = Topology(
            queues=(Queue(name=self._queue, arguments={"x-expires": _EXPIRES_MS}),),
            bindings=(Binding(exchange=self._exchange, queue=self._queue, routing_key="#"),),
        )
        await self._transport.declare(topology)
        await self._transport.consume(self._queue, self._copy, prefetch=16)

    async def next(self, routing_key_prefix: str, *, timeout_s: float = 60.0) -> tuple[str, bytes]:
        """Return routing key and body of the next copy whose key begins so.

        Raises:
            TimeoutError: none came in time.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                key, body = await self._bodies.get()
                if key.startswith(routing_key_prefix):
                    return key, body

    def _copy(self, delivery: Delivery) -> None:
        self._bodies.put_nowait((delivery.routing_key, delivery.body))
        delivery.ack()
