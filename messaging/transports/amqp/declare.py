"""Makes topology exist, looks at queues, takes locks: each question on its own channel, because a refusal ends it.

What this program does not make (`Declares`) it looks for: RabbitMQ tells everybody whether an exchange or a queue
exists, whatever their rights. Nobody can ask for arguments and bindings: those are the word of whoever made them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any, Final

import aiormq

from messaging.core.topology import Binding, Declares, Exchange, Queue, Topology
from messaging.errors import TopologyConflictError
from messaging.transports.amqp.connection import RPC_TIMEOUT_S, Connection
from messaging.transports.amqp.errors import CLIENT_ERRORS, declare_error, missing_error
from messaging.transports.amqp.tasks import asked
from messaging.transports.base import QueueDepth

__all__ = ["declare", "look", "take_lock", "unbind"]

# What the broker says of a queue whose node is down: NOT_FOUND - home node 'a@host' of durable queue '…' is down.
_NODE_DOWN: Final = "home node"


async def declare(connection: Connection, topology: Topology, declares: Declares = Declares.ALL) -> None:
    """Make exchanges, queues and bindings exist, in this order; what is not ours to make must be there.

    Args:
        connection: The way to the broker.
        topology: What should exist.
        declares: What this program makes.

    Raises:
        TopologyConflictError: Something exists with other arguments, and the message shows both; or it is not ours to
            make and does not exist.
        ConfigurationError: The broker forbids it to this user.
        ConnectionLostError: The connection broke on the way.
    """
    made = {queue.name for queue in topology.queues if declares.makes(queue)}
    async with connection.throwaway() as channel:
        for exchange in topology.exchanges:
            what = f"exchange {exchange.name!r}"
            if declares.makes(exchange):
                await _ask(_exchange(channel, exchange), what, exchange.arguments)
            else:
                await _find(channel.exchange_declare(exchange.name, passive=True, timeout=RPC_TIMEOUT_S), what)
        down = set()
        for queue in topology.queues:
            if _is_replicated(queue):
                await _settle(channel, queue, is_made=queue.name in made)
            elif not await _is_reachable(connection, queue, is_made=queue.name in made):
                down.add(queue.name)
        for binding in topology.bindings:
            # What is bound to a queue that is down now was bound when it was made.
            if binding.queue not in down and (declares is Declares.ALL or binding.queue in made):
                what = f"the binding of queue {binding.queue!r} to exchange {binding.exchange!r}"
                await _ask(_binding(channel, binding), what, binding.routing_key)


async def unbind(connection: Connection, bindings: Iterable[Binding]) -> None:
    """Take bindings away. RabbitMQ does not mind those that are not there, nor a queue that is not.

    Raises:
        ConfigurationError: The broker forbids it to this user.
        ConnectionLostError: The connection broke on the way.
    """
    async with connection.throwaway() as channel:
        for binding in bindings:
            what = f"the binding of queue {binding.queue!r} to exchange {binding.exchange!r}"
            asking = channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await _ask(asking, what, binding.routing_key)


async def look(connection: Connection, queue: str) -> QueueDepth | None:
    """Return what waits in a queue and how many consume from it; None when there is no such queue.

    Raises:
        TopologyConflictError: It belongs to another connection alone.
        ConnectionLostError: The connection broke.
    """
    async with connection.throwaway() as channel:
        try:
            found = await asked(channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT_S))
        except aiormq.ChannelNotFoundEntity:
            return None
        except CLIENT_ERRORS as error:
            raise declare_error(error, f"queue {queue!r}", "a look at it") from error
    return QueueDepth(messages=found.message_count or 0, consumers=found.consumer_count or 0)


@contextlib.asynccontextmanager
async def take_lock(connection: Connection, name: str) -> AsyncIterator[None]:
    """Hold an exclusive queue, which ends with the connection at the latest.

    Raises:
        TopologyConflictError: Another connection holds it.
        ConnectionLostError: The connection broke.
    """
    async with connection.throwaway() as channel:
        asking = channel.queue_declare(name, exclusive=True, durable=False, timeout=RPC_TIMEOUT_S)
        await _ask(asking, f"lock {name!r}", "to hold it alone")
    try:
        yield
    finally:
        with contextlib.suppress(*CLIENT_ERRORS):
            async with asyncio.timeout(RPC_TIMEOUT_S), connection.throwaway() as channel:
                await asked(channel.queue_delete(name))


async def _settle(channel: aiormq.Channel, queue: Queue, *, is_made: bool) -> None:
    what = f"queue {queue.name!r}"
    if is_made:
        await _ask(_queue(channel, queue), what, dict(queue.arguments))
    else:
        await _find(channel.queue_declare(queue.name, passive=True, timeout=RPC_TIMEOUT_S), what)


async def _is_reachable(connection: Connection, queue: Queue, *, is_made: bool) -> bool:
    """Make a queue exist that lives on one node; False while that node is down, which must not stop all the others."""
    try:
        async with connection.throwaway() as channel:
            await _settle(channel, queue, is_made=is_made)
    except TopologyConflictError as error:
        if _NODE_DOWN in str(error.__cause__):
            return False
        raise
    return True


def _is_replicated(queue: Queue) -> bool:
    return queue.arguments.get("x-queue-type") == "quorum"


async def _ask(asking: Awaitable[Any], what: str, arguments: object) -> None:
    try:
        await asked(asking)
    except CLIENT_ERRORS as error:
        raise declare_error(error, what, arguments) from error


async def _find(asking: Awaitable[Any], what: str) -> None:
    try:
        await asked(asking)
    except aiormq.ChannelNotFoundEntity as error:
        raise missing_error(what) from error
    except CLIENT_ERRORS as error:
        raise declare_error(error, what, "a look at it") from error


def _exchange(channel: aiormq.Channel, exchange: Exchange) -> Awaitable[Any]:
    return channel.exchange_declare(
        exchange.name,
        exchange_type=exchange.type,
        durable=True,
        arguments=dict(exchange.arguments),
        timeout=RPC_TIMEOUT_S,
    )


def _queue(channel: aiormq.Channel, queue: Queue) -> Awaitable[Any]:
    return channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), timeout=RPC_TIMEOUT_S)


def _binding(channel: aiormq.Channel, binding: Binding) -> Awaitable[Any]:
    return channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, timeout=RPC_TIMEOUT_S)
