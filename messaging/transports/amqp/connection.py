"""One connection to the broker: opened within bounds, its loss noticed, closed within bounds whatever the peer does.

It is aio-pika's plain connection, never the robust one (docs/topology.md, "The adapter"). What is ours is the socket,
through aiormq's public `TransportFactory`: it can be aborted when a polite close does not end, and its reader hears
what aiormq keeps to itself (`frames`).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

import aio_pika
import aio_pika.abc
import aiormq
from yarl import URL

from messaging.errors import ConfigurationError, ConnectionLostError, MessagingError
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.channel_numbers import ChannelNumbers, GuardedWriter
from messaging.transports.amqp.errors import CLIENT_ERRORS, Node, Refusal, connect_error
from messaging.transports.amqp.frames import FrameReader
from messaging.transports.amqp.splitter import Splitter
from messaging.transports.amqp.tasks import asked
from messaging.transports.amqp.tls import refusal_after_handshake

__all__ = ["ENDING_TIMEOUT_S", "RPC_TIMEOUT_S", "Connection", "close_channel"]

RPC_TIMEOUT_S: Final = 10.0
"""How long one question to the broker may take, seconds."""

ENDING_TIMEOUT_S: Final = 2.0
"""How long one step of an orderly end may take, seconds; then it ends without order."""

# aiormq and aio-pika log what they also raise; we say it once, in our own events. Applications still receive their
# records: this only keeps them off stderr where nobody configured logging.
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class _Socket(aiormq.TransportFactory):
    """Opens the socket for aiormq and keeps hold of it."""

    def __init__(self, node: Node, on_blocked: Callable[[str | None], None], *, is_split: bool) -> None:
        self.splitter: Splitter | None = None
        self.numbers = ChannelNumbers()
        self._is_split = is_split
        self._node = node
        self._on_blocked = on_blocked
        self._reader: FrameReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def refusal(self) -> Refusal | None:
        return None if self._reader is None else self._reader.refusal

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # aiormq would keep one context for ever, and with it a certificate that has been renewed since.
        del options["ssl_context_provider"]
        if url.scheme == "amqps":
            options["ssl"] = await asyncio.to_thread(self._node.tls.context)
            options["server_hostname"] = self._node.tls.server_name or url.host
        loop = asyncio.get_running_loop()
        reader = FrameReader(self._on_blocked, self.numbers)
        splitter = Splitter(reader) if self._is_split else None
        protocol = splitter or asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(lambda: protocol, url.host or "", url.port or 0, **options)
        except OSError as error:
            raise aiormq.AMQPConnectionError(*error.args) from error
        self._reader = reader
        self.splitter = splitter
        on_write = None if splitter is None else splitter.note_written
        self._writer = GuardedWriter(transport, protocol, reader, numbers=self.numbers, on_write=on_write)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class _Client(aio_pika.Connection):
    """aio-pika's connection over our socket. The factory goes in here, because `connect` would put it into the URL."""

    def __init__(self, url: URL, socket: _Socket, **options: Any) -> None:
        super().__init__(url, **options)
        self.kwargs["transport_factory"] = socket


class Connection:
    """One open connection.

    Attributes:
        node: Where it leads.
        lost: Done once the connection is gone.
        blocked_by: The broker's reason while it blocks this connection, else None.
        fast_path: Whether its channels may take the fast path.
    """

    def __init__(self, node: Node, client: _Client, socket: _Socket, fast_path: FastPath) -> None:
        self.node = node
        self.fast_path = fast_path
        self.blocked_by: str | None = None
        self.on_blocked: Callable[[], None] | None = None
        self._client = client
        self._socket = socket
        self._channels: set[aio_pika.abc.AbstractChannel] = set()
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls, node: Node, *, name: str, heartbeat_s: int, timeout_s: float, fast_path: FastPath | None = None
    ) -> Self:
        """Connect.

        Args:
            node: Where to.
            name: Shown in the broker's list of connections.
            heartbeat_s: Seconds between signs of life.
            timeout_s: Bound on the whole attempt, seconds.
            fast_path: Whether its channels may take the fast path; None means that they may not.

        Raises:
            ConnectionLostError: It did not work this time.
            ConfigurationError: The broker refuses the credentials or the virtual host.
        """
        made: list[Self] = []
        fast_path = fast_path or FastPath(is_on=False)
        socket = _Socket(node, lambda reason: made[0].set_blocked(reason) if made else None, is_split=fast_path.is_on)
        url = node.url.update_query(heartbeat=heartbeat_s)
        if node.is_known_by_certificate:
            url = url.update_query(auth="external")
        client = _Client(url, socket, client_properties={"connection_name": name})
        try:
            async with asyncio.timeout(timeout_s):
                await asked(client.connect())
        except CLIENT_ERRORS as error:
            await _close(client, socket)
            if isinstance(error, MessagingError):
                raise
            raise connect_error(await _explained(error, node), node, socket.refusal) from error
        except BaseException:
            await _close(client, socket)
            raise
        connection = cls(node, client, socket, fast_path)
        made.append(connection)
        connection._watch()
        return connection

    @property
    def is_open(self) -> bool:
        """Whether frames can still come and go, as far as is known."""
        transport = self._client.transport
        return not self.lost.done() and transport is not None and transport.connection.is_opened

    @property
    def splitter(self) -> Splitter | None:
        """What cuts the broker's bytes into frames; None when aiormq does."""
        return self._socket.splitter

    @property
    def reason(self) -> str:
        """Why it was lost, in one line."""
        if self._socket.refusal is not None:
            return self._socket.refusal.text
        if not self.lost.done() or self.lost.cancelled():
            return "the connection broke"
        error = self.lost.exception()
        return "the broker closed the connection" if error is None else str(error) or type(error).__name__

    async def open_channel(self, *, confirms: bool) -> aiormq.Channel:
        """Return a new channel, with publisher confirms and returns that raise, or with neither.

        Raises:
            ConnectionLostError: The connection is gone or does not answer.
        """
        number = self._take_number()
        try:
            channel = self._client.channel(number, publisher_confirms=confirms, on_return_raises=confirms)
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await asked(channel.initialize())
            underlay = await channel.get_underlay_channel()
        except CLIENT_ERRORS as error:
            raise ConnectionLostError(f"no channel at {self.node.address}: {error or type(error).__name__}") from error
        finally:
            self._socket.numbers.give_back(number)
        if not isinstance(underlay, aiormq.Channel):
            raise ConfigurationError(f"aio-pika works over {type(underlay).__name__}: install aiormq>=7.2.4,<8")
        # aio-pika's channel forgets the channel below when it is collected.
        self._channels.add(channel)
        underlay.closing.add_done_callback(lambda _: self._channels.discard(channel))
        return underlay

    @contextlib.asynccontextmanager
    async def throwaway(self) -> AsyncIterator[aiormq.Channel]:
        """Lend a channel for questions that may end it: the broker answers a refused declaration by closing it."""
        channel = await self.open_channel(confirms=False)
        try:
            yield channel
        finally:
            await close_channel(channel)

    async def aclose(self) -> None:
        """Close politely within two seconds, else abort the socket."""
        await _close(self._client, self._socket)

    def abort(self) -> None:
        """Drop the socket at once, as a network that fails would."""
        self._socket.abort()

    def declare_lost(self) -> None:
        """End the wait for its loss: it is of no more use."""
        if not self.lost.done():
            self.lost.set_result(None)

    def _take_number(self) -> int:
        transport = self._client.transport
        if transport is None:
            raise ConnectionLostError(f"no channel at {self.node.address}: {self.reason}")
        client = transport.connection
        return self._socket.numbers.take(known=client.channels, highest=client.connection_tune.channel_max)

    def _watch(self) -> None:
        transport = self._client.transport
        assert transport is not None  # noqa: S101 - `connect` has just returned
        if self.splitter is not None:
            self.splitter.agree(transport.connection.connection_tune.frame_max)
        closing = transport.connection.closing
        closing.add_done_callback(self._on_closing)

    def _on_closing(self, closing: asyncio.Future[Any]) -> None:
        if self.lost.done():
            return
        error = None if closing.cancelled() else closing.exception()
        if error is None or isinstance(error, asyncio.CancelledError):
            self.lost.set_result(None)
        else:
            self.lost.set_exception(error)
            # Retrieved here: nobody need ask for the reason.
            self.lost.exception()

    def set_blocked(self, reason: str | None) -> None:
        """Note that the broker blocks this connection, or no longer does."""
        self.blocked_by = reason
        if self.on_blocked is not None:
            self.on_blocked()


async def _explained(error: Exception, node: Node) -> Exception:
    if node.url.scheme != "amqps" or not isinstance(error.__cause__, ConnectionError):
        return error
    return await refusal_after_handshake(node.tls, host=node.url.host or "", port=node.url.port or 0) or error


async def close_channel(channel: aiormq.Channel) -> None:
    """Close a channel within bounds; one that is gone already is fine."""
    with contextlib.suppress(*CLIENT_ERRORS):
        async with asyncio.timeout(ENDING_TIMEOUT_S):
            await asked(channel.close())


async def _close(client: _Client, socket: _Socket) -> None:
    try:
        async with asyncio.timeout(ENDING_TIMEOUT_S):
            await asked(client.close())
    except CLIENT_ERRORS:
        socket.abort()
        with contextlib.suppress(*CLIENT_ERRORS):
            async with asyncio.timeout(ENDING_TIMEOUT_S):
                await asked(client.close())
