"""Reads a stream queue from its beginning: a log that keeps what is read, such as the audit records.

Streams want a bound on what is unsettled and an offset to begin at, and deliver the same to everybody (RabbitMQ 3.9 and
later). Nothing is taken away: an acknowledgement only asks for more.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import aiormq
import aiormq.abc
from aiormq.abc import DeliveredMessage

from messaging.errors import ConnectionLostError
from messaging.transports.amqp.connection import RPC_TIMEOUT_S, Connection
from messaging.transports.amqp.errors import CLIENT_ERRORS, declare_error
from messaging.transports.amqp.tasks import asked

__all__ = ["read_stream"]

PREFETCH: Final = 200
# The broker does not say where a stream ends: it has ended when nothing more comes of a broker that answers.
_QUIET_S: Final = 0.5


async def read_stream(connection: Connection, queue: str, *, quiet_s: float = _QUIET_S) -> AsyncGenerator[bytes, None]:
    """Yield what a stream holds, oldest first, until nothing more comes; nothing at all if there is no such queue.

    A broker that stands still does not end it: between two silences of `quiet_s` seconds it must have answered.

    Raises:
        ConfigurationError: The broker forbids it to this user.
        TopologyConflictError: The queue is no stream.
        ConnectionLostError: The connection broke on the way.
    """
    async with connection.throwaway() as channel:
        arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        try:
            await asked(channel.basic_qos(prefetch_count=PREFETCH, timeout=RPC_TIMEOUT_S))
            await asked(
                channel.basic_consume(queue, arrived.put, arguments={"x-stream-offset": "first"}, timeout=RPC_TIMEOUT_S)
            )
        except aiormq.ChannelNotFoundEntity:
            return
        except CLIENT_ERRORS as error:
            raise declare_error(error, f"stream {queue!r}", "to read it") from error
        while (message := await _next(channel, queue, arrived, quiet_s)) is not None:
            yield message.body
            if message.delivery_tag is None:
                raise ConnectionLostError(f"stream {queue!r}: a message came without a number")
            try:
                await channel.basic_ack(message.delivery_tag, wait=False)
            except CLIENT_ERRORS as error:
                raise _lost(queue) from error


async def _next(
    channel: aiormq.abc.AbstractChannel, queue: str, arrived: "asyncio.Queue[DeliveredMessage]", quiet_s: float
) -> DeliveredMessage | None:
    found = await _within(arrived, quiet_s)
    if found is not None:
        return found
    try:
        # It changes nothing; what the broker had sent before comes before its answer.
        await asked(channel.basic_qos(prefetch_count=PREFETCH, timeout=RPC_TIMEOUT_S))
    except CLIENT_ERRORS as error:
        raise _lost(queue) from error
    return await _within(arrived, quiet_s)


async def _within(arrived: "asyncio.Queue[DeliveredMessage]", quiet_s: float) -> DeliveredMessage | None:
    try:
        async with asyncio.timeout(quiet_s):
            return await arrived.get()
    except TimeoutError:
        return None


def _lost(queue: str) -> ConnectionLostError:
    return ConnectionLostError(f"the connection was lost in the middle of stream {queue!r}; read it again")
