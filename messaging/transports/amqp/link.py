"""Keeps one connection open for ever: connects, prepares, waits until it is lost, connects anew with fresh objects.

connecting ── open, prepare ──► connected ── lost ──► connecting …
    ▲ waits with full jitter; when the broker refuses us, slowly
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from messaging.core.ambient import Ambient
from messaging.errors import ConfigurationError, ConnectionLostError, MessagingError
from messaging.transports.amqp.backoff import reconnect_delay_s
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.tasks import end
from messaging.transports.base import LinkState

__all__ = ["Link"]

# Refused credentials, a missing virtual host, other arguments: a person must act, and a fast loop would only fill logs.
_REFUSED_DELAY_S: Final = 15.0
_LIVENESS_S: Final = 5.0
_NOTICE_S: Final = 0.01


class Link:
    """One connection that mends itself.

    Args:
        name: Shown in the broker's list of connections.
        nodes: Addresses, tried in turn.
        ambient: Clock and jitter.
        connect_timeout_s: Bound on one attempt.
        heartbeat_s: Seconds between signs of life.
        prepare: Called with each new connection before anybody else may use it.
        on_change: Called after each change of `state`.
        fast_path: Whether its channels may take it.
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[Node],
        *,
        ambient: Ambient,
        connect_timeout_s: float,
        heartbeat_s: int,
        prepare: Callable[[Connection], Awaitable[None]],
        on_change: Callable[[], None],
        fast_path: FastPath,
    ) -> None:
        self.name = name
        self.problem: str | None = None
        self._nodes = nodes
        self._ambient = ambient
        self._connect_timeout_s = connect_timeout_s
        self._heartbeat_s = heartbeat_s
        self._prepare = prepare
        self._on_change = on_change
        self._fast_path = fast_path
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> LinkState:
        """How the connection is."""
        if self._task is None:
            return LinkState.CLOSED
        if self._connection is None:
            return LinkState.CONNECTING
        return LinkState.CONNECTED if self._connection.blocked_by is None else LinkState.BLOCKED

    @property
    def current(self) -> Connection | None:
        """The connection, when there is one."""
        return self._connection

    def start(self) -> None:
        """Begin to connect."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"link {self.name}")

    async def first(self) -> None:
        """Return once it has been connected for the first time.

        Raises:
            ConfigurationError: The broker refuses us.
        """
        assert self._first is not None  # noqa: S101 - `start` comes first
        await asyncio.shield(self._first)

    async def connected(self) -> Connection:
        """Return the connection, waiting for it as long as it takes."""
        while True:
            await self._up.wait()
            connection = self._connection
            if connection is not None and connection.is_open:
                return connection
            if connection is not None:
                # aiormq's reader ended and the rest of its ending takes time: do not wait for that.
                connection.declare_lost()
            await asyncio.sleep(_NOTICE_S)

    async def aclose(self) -> None:
        """Close the connection and stop, within bounds."""
        task, self._task = self._task, None
        if task is not None:
            await end([task])
        if self._first is not None and not self._first.done():
            self._first.cancel()

    async def _run(self) -> None:
        while True:
            connection = await self._open()
            try:
                await self._hold(connection)
                self._fail(
                    ConnectionLostError(f"lost the connection to {connection.node.address}: {connection.reason}")
                )
            finally:
                self._connection = None
                self._up.clear()
                await connection.aclose()

    async def _hold(self, connection: Connection) -> None:
        self._connection = connection
        self.problem = None
        connection.on_blocked = self._note_blocked
        self._up.set()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        self._note_blocked()
        while connection.is_open:
            await asyncio.wait({connection.lost}, timeout=_LIVENESS_S)
        self._connection = None
        self._up.clear()

    def _note_blocked(self) -> None:
        reason = None if self._connection is None else self._connection.blocked_by
        if self._connection is not None:
            self.problem = reason and (
                f"the broker {self._connection.node.address} blocks publishers ({reason}): free memory or disk there"
            )
        self._on_change()

    async def _open(self) -> Connection:
        down_since_s = self._ambient.monotonic_s()
        attempt = 0
        while True:
            attempt += 1
            refused = False
            for node in self._nodes:
                try:
                    return await self._open_at(node)
                except MessagingError as error:
                    self._fail(error)
                    refused = refused or not error.transient
            down_s = self._ambient.monotonic_s() - down_since_s
            delay_s = reconnect_delay_s(attempt, down_s=down_s, jitter=self._ambient.jitter())
            await asyncio.sleep(_REFUSED_DELAY_S if refused else delay_s)

    async def _open_at(self, node: Node) -> Connection:
        connection = await Connection.open(
            node,
            name=self.name,
            heartbeat_s=self._heartbeat_s,
            timeout_s=self._connect_timeout_s,
            fast_path=self._fast_path,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(connection.abort)
            try:
                await self._prepare(connection)
            except MessagingError:
                await connection.aclose()
                raise
            undo.pop_all()
        return connection

    def _fail(self, error: MessagingError) -> None:
        self.problem = str(error)
        first = self._first
        if isinstance(error, ConfigurationError) and first is not None and not first.done():
            first.set_exception(error)
            # Retrieved here: the one who waits may have given up.
            first.exception()
        self._on_change()
