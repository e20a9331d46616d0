"""A connection to the broker without an identity: for topology and diagnosis, which seal and open nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from messaging.ambient import real_ambient
from messaging.assembly import tls_of
from messaging.settings import Settings
from messaging.transports.amqp.transport import AmqpTransport

__all__ = ["connected"]


@asynccontextmanager
async def connected(settings: Settings, *, name: str) -> AsyncIterator[AmqpTransport]:
    """Connect to the broker of the settings for the length of the block.

    Args:
        settings: Where the broker is and how long to try.
        name: Shown in the broker's list of connections.

    Raises:
        ConnectionLostError: no broker within the connect timeout.
        ConfigurationError: the broker refuses the credentials or the virtual host.
    """
    transport = AmqpTransport(
        settings.broker_urls,
        ambient=real_ambient(),
        connect_timeout_s=settings.connect_timeout_s,
        heartbeat_s=settings.heartbeat_s,
        fast=settings.fast,
        name=f"messaging {name}",
        tls=tls_of(settings),
    )
    try:
        await transport.connect()
        yield transport
    finally:
        await transport.aclose()
