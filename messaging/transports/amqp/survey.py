"""Finds out by AMQP alone what exists, and in which argument it differs from what is wanted.

AMQP has no question for arguments or bindings. But a declaration of something that exists changes nothing: it is agreed
to, or refused with the first argument that differs. So what is there is first looked for, and only then declared.
"""

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiormq

from messaging.core.topology import Argument, Exchange, Queue, Topology
from messaging.core.topology_plan import TYPE, Existing
from messaging.errors import ConfigurationError, MessagingError, TopologyConflictError
from messaging.transports.amqp.connection import RPC_TIMEOUT_S, Connection
from messaging.transports.amqp.errors import CLIENT_ERRORS, declare_error
from messaging.transports.amqp.tasks import asked

__all__ = ["Survey", "survey"]

# PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '5' of type
# 'long' but current is none
_REFUSAL: Final = re.compile(r"inequivalent arg '([^']+)' for .*: received (.+) but current is (.+)$", re.DOTALL)
_VALUE: Final = re.compile(r"'([^']*)'")


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        existing: Without bindings. Arguments that AMQP did not speak of are taken to be as wanted.
        unknown: What could not be compared, and why.
    """

    existing: Existing
    unknown: dict[str, str] = field(default_factory=dict)


async def survey(connection: Connection, wanted: Topology, *, also: tuple[str, ...] = ()) -> Survey:
    """Look for everything that is wanted, and for further queues by name.

    Raises:
        ConnectionLostError: The connection broke.
    """
    exchanges: dict[str, Mapping[str, Argument]] = {}
    queues: dict[str, Mapping[str, Argument]] = {}
    found = Survey(Existing(exchanges=exchanges, queues=queues))
    for exchange in wanted.exchanges:
        if await _exists(connection, exchange):
            exchanges[exchange.name] = await _compared(connection, exchange, found)
    for queue in wanted.queues:
        if await _exists(connection, queue):
            queues[queue.name] = await _compared(connection, queue, found)
    for name in also:
        if await _exists(connection, Queue(name=name)):
            queues[name] = {}
    return found


async def _exists(connection: Connection, thing: Exchange | Queue) -> bool:
    async with connection.throwaway() as channel:
        try:
            await asked(_declaration(channel, thing, passive=True))
        except aiormq.ChannelNotFoundEntity:
            return False
        except CLIENT_ERRORS as error:
            raise declare_error(error, _what(thing), "a look at it") from error
    return True


async def _compared(connection: Connection, thing: Exchange | Queue, found: Survey) -> Mapping[str, Argument]:
    arguments = dict(thing.arguments)
    if isinstance(thing, Exchange):
        arguments[TYPE] = thing.type
    async with connection.throwaway() as channel:
        try:
            await asked(_declaration(channel, thing, passive=False))
        except aiormq.ChannelPreconditionFailed as error:
            _differ(arguments, str(error), thing, found)
        except CLIENT_ERRORS as error:
            meaning = declare_error(error, _what(thing), arguments)
            if not isinstance(meaning, ConfigurationError | TopologyConflictError):
                raise meaning from error
            found.unknown[_what(thing)] = _first_words(meaning)
    return arguments


def _differ(arguments: dict[str, Argument], said: str, thing: Exchange | Queue, found: Survey) -> None:
    match = _REFUSAL.search(said)
    if match is None:
        found.unknown[_what(thing)] = said
        return
    name, current = match[1], _VALUE.search(match[3])
    if current is None:
        arguments.pop(name, None)
    else:
        arguments[name] = int(current[1]) if current[1].isdecimal() else current[1]


def _declaration(channel: aiormq.Channel, thing: Exchange | Queue, *, passive: bool) -> Awaitable[Any]:
    words: dict[str, Any] = {"passive": True} if passive else {"durable": True, "arguments": dict(thing.arguments)}
    if isinstance(thing, Queue):
        return channel.queue_declare(thing.name, timeout=RPC_TIMEOUT_S, **words)
    if not passive:
        words["exchange_type"] = thing.type
    return channel.exchange_declare(thing.name, timeout=RPC_TIMEOUT_S, **words)


def _what(thing: Exchange | Queue) -> str:
    return f"{'queue' if isinstance(thing, Queue) else 'exchange'} {thing.name}"


def _first_words(error: MessagingError) -> str:
    return str(error).partition(";")[0]
