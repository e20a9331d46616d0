"""`Operator`: a person at the command line or in a program, connected: sends messages, works on dead letters.

A module of its own, so that services do not import what only operators need.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from messaging.assembly import build
from messaging.core.ambient import Ambient
from messaging.core.names import is_operator
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.runtime.dead_letters import DeadLetters
from messaging.runtime.failpoint import Failpoint
from messaging.runtime.parts import Parts
from messaging.settings import Settings

__all__ = ["Operator", "open_operator"]


class Operator:
    """One operator, connected: sends messages from `ops:<name>` and works on dead letters."""

    def __init__(self, parts: Parts, *, failpoint: Failpoint | None = None) -> None:
        self.name = parts.identity
        self.keyring = parts.keyring
        self.trust = parts.trust
        self.transport = parts.transport
        self.names = parts.names
        self.publisher = parts.publisher
        self.dead_letters = DeadLetters(
            operator=parts.identity,
            transport=parts.transport,
            opener=parts.opener,
            sealer=parts.sealer,
            publisher=parts.publisher,
            names=parts.names,
            ambient=parts.ambient,
            failpoint=failpoint,
        )
        self.send = parts.publisher.send
        self.publish = parts.publisher.publish
        self.request = parts.publisher.request


@asynccontextmanager
async def open_operator(
    settings: Settings, operator: str, *, passphrase: bytes | None = None, ambient: Ambient | None = None
) -> AsyncIterator[Operator]:
    """Connect as an operator, such as `ops:alice`.

    Raises:
        ConfigurationError: no such keyring, or it does not open.
        ConnectionLostError: no broker.
    """
    if not is_operator(operator):
        raise ConfigurationError(f"{operator!r} is no operator: write ops:<name>, such as ops:alice")
    parts = build(settings, operator, Subscriptions(), passphrase=passphrase, ambient=ambient)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.transport.aclose)
        await parts.transport.connect()
        await parts.transport.declare(parts.names.shared())
        stack.push_async_callback(parts.replies.aclose)
        yield Operator(parts, failpoint=Failpoint.parse(settings.failpoint))
