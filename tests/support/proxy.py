"""A TCP proxy between a client and a broker, to cut, to hold back, and to refuse: what networks do."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Final, Self

__all__ = ["TcpProxy"]

_CHUNK_BYTES: Final = 256 * 1024


class TcpProxy:
    """Forwards 127.0.0.1:`port` to a broker.

    Example:
        async with TcpProxy("127.0.0.1", 5672) as proxy:
            ...                 # connect to proxy.port
            proxy.cut()         # every connection ends without a word
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.connections_total = 0
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._answers = asyncio.Event()
        self._answers.set()
        self._words = asyncio.Event()
        self._words.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Listen, on the port of the last time if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Listen no more, and end what is open: from here on there is no broker."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """End every connection at once, as a network that fails: what is on its way is lost."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()

    def reset(self) -> None:
        """As `cut`, with a TCP reset instead of an end: both sides get an error."""
        for writer in tuple(self._writers):
            # Linger of no time: closing sends RST.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.cut()

    async def cut_and_wait(self) -> None:
        """As `cut`, and return once those connections have ended."""
        doomed = tuple(self._tasks)
        self.cut()
        if doomed:
            await asyncio.wait(doomed)

    def say(self, data: bytes) -> None:
        """Let every client hear this, as if the broker had said it."""
        for writer in tuple(self._clients):
            writer.write(data)

    def hold(self) -> None:
        """Keep back what the broker says from now on; what clients say still gets through."""
        self._answers.clear()

    def hold_words(self) -> None:
        """Keep back what clients say from now on; what the broker says still gets through."""
        self._words.clear()

    def release(self) -> None:
        """Let through what was kept back in either direction, and all that follows."""
        self._answers.set()
        self._words.set()

    async def aclose(self) -> None:
        """End everything."""
        self.refuse()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio complains of those that it made itself when they are cancelled.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_total += 1
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        self._clients.add(writer)
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, is_answer=False), self._pump(far_reader, writer, is_answer=True)
            )
        finally:
            self._clients.discard(writer)
            for end in (writer, far_writer):
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await (self._answers if is_answer else self._words).wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            # The other direction ends too: half a connection is none.
            writer.transport.abort()
