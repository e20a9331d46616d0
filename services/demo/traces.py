"""Takes the demo's queues and exchanges away from a broker that is not its own."""

from collections.abc import Iterable

import aio_pika

from messaging import Settings
from messaging.core.topology import Subscriptions, Topology

__all__ = ["take_away"]


async def take_away(settings: Settings, services: Iterable[tuple[str, Subscriptions]]) -> None:
    """Delete everything that these services declared in the namespace of the settings.

    Queues for replies are not known here; they go by themselves half an hour after their owner.
    """
    names = settings.names
    topology = sum((names.of_service(name, handled) for name, handled in services), start=Topology())
    connection = await aio_pika.connect(settings.broker_urls[0])
    async with connection:
        channel = await connection.channel()
        for queue in topology.queues:
            await channel.queue_delete(queue.name)
        for exchange in topology.exchanges:
            await channel.exchange_delete(exchange.name)
