"""The broker of a benchmark: a private node of its own or one that was lent, and what waits in its queues."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from messaging.cli.broker_node import PrivateNode, free_port
from messaging.transports.amqp.tls import Tls

__all__ = ["Broker", "Queues", "lent_or_private", "open_queues", "version_of"]

QUORUM_VHOST: Final = "quorum"
TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the programs meet.

    Attributes:
        url: A virtual host where a queue is classic unless it says otherwise.
        quorum_url: One where it is a quorum queue, for those whose interface cannot say it.
        version: As the broker says.
        is_private: Whether it was started for this run.
    """

    url: str
    quorum_url: str
    version: str
    is_private: bool


class Queues:
    """Looks after the queues of one virtual host."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def count(self, name: str) -> int:
        """Return how many messages wait in a queue; 0 if there is no such queue."""
        async with self._queue(name) as queue:
            return 0 if queue is None else queue.declaration_result.message_count or 0

    async def purge(self, name: str) -> None:
        """Throw away what waits in a queue; no such queue is fine."""
        async with self._queue(name) as queue:
            if queue is not None:
                await queue.purge(timeout=TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def _queue(self, name: str) -> AsyncIterator[AbstractQueue | None]:
        async with self._connection.channel() as channel:
            try:
                queue = await channel.declare_queue(name, passive=True, timeout=TIMEOUT_S)
            except ChannelNotFoundEntity:
                # The broker has closed the channel with that.
                yield None
                return
            yield queue


@contextlib.asynccontextmanager
async def open_queues(url: str) -> AsyncIterator[Queues]:
    """Lend a look at the queues of a virtual host."""
    connection = await aio_pika.connect(url, timeout=TIMEOUT_S)
    async with connection:
        yield Queues(connection)


async def version_of(url: str, tls: Tls | None = None) -> str:
    """Return the version that a broker states when one connects."""
    context = None if tls is None else tls.context()
    connection = await aio_pika.connect(url, timeout=TIMEOUT_S, ssl_context=context)
    async with connection:
        assert connection.transport is not None
        stated = connection.transport.connection.server_properties.get("version", b"unknown")
        return stated.decode() if isinstance(stated, bytes) else str(stated)


@contextlib.contextmanager
def lent_or_private(url: str | None) -> Iterator[tuple[str, str]]:
    """Lend the addresses of a broker: the given one, else those of a private node, for the time of the block."""
    if url is not None:
        yield url, url
        return
    with tempfile.TemporaryDirectory(prefix="messaging-benchmark-", ignore_cleanup_errors=True) as folder:
        node = PrivateNode(Path(folder), port=free_port(), name="benchmark")
        node.start()
        try:
            node.ctl("add_vhost", QUORUM_VHOST, "--default-queue-type", "quorum")
            node.ctl("set_permissions", "-p", QUORUM_VHOST, "guest", ".*", ".*", ".*")
            yield node.url, f"{node.url}{QUORUM_VHOST}"
        finally:
            node.kill()
