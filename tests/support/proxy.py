"""A TCP proxy between a client and a broker: it cuts, half-closes, holds back, delays, slows down and refuses."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.support.amqp_frames import BANNER_BYTES, Frames, Said

__all__ = ["TcpProxy"]

_CHUNK_BYTES: Final = 256 * 1024
# A slow link lets through a little at a time, not a lot now and then.
_SLICES_PER_S: Final = 20


@dataclass(slots=True, kw_only=True)
class _Trap:
    """Waits for so many of one word."""

    said: Said
    left: int
    sprung: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, frames: Frames, data: bytes) -> int | None:
        """Return where the last of them ends in the data."""
        for end, method in frames.feed(data):
            if method == self.said.method:
                self.left -= 1
                if self.left == 0:
                    return end
        return None


class TcpProxy:
    """Forwards 127.0.0.1:`port` to a broker.

    Example:
        async with TcpProxy("127.0.0.1", 5672) as proxy:
            ...                 # connect to proxy.port
            proxy.cut()         # every connection ends without a word
            await proxy.cut_after(Said.CONFIRM, 7).wait()       # the seventh confirm still gets through
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
        self._ended: set[asyncio.StreamWriter] = set()
        self._delay_s = 0.0
        self._bytes_per_s = 0
        self._trap: _Trap | None = None
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

    def cut_after(self, said: Said, count: int) -> asyncio.Event:
        """Reset every connection once so many of a word have got through, over all of them; set when it is done."""
        self._trap = _Trap(said=said, left=count)
        return self._trap.sprung

    def end_answers(self) -> None:
        """Tell clients that the broker says no more (FIN); what they say still gets through."""
        self._end(self._clients)

    def end_words(self) -> None:
        """Tell the broker that its clients say no more (FIN); what it says still gets through."""
        self._end(self._writers - self._clients)

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

    def delay(self, seconds: float) -> None:
        """Let everything in either direction arrive that much later from now on."""
        self._delay_s = seconds

    def throttle(self, bytes_per_s: int) -> None:
        """Let through no more than so many bytes a second, in each direction of each connection, from now on."""
        self._bytes_per_s = bytes_per_s

    def release(self) -> None:
        """Let through what was kept back in either direction, and all that follows as fast as it comes."""
        self._delay_s, self._bytes_per_s = 0.0, 0
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
                self._ended.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        frames = Frames(skipped=0 if is_answer else BANNER_BYTES)
        try:
            while data := await reader.read(self._slice_bytes):
                await (self._answers if is_answer else self._words).wait()
                await self._pass(data)
                trap = self._trap
                caught = self._caught(trap, frames, data, is_answer=is_answer)
                if writer not in self._ended:
                    writer.write(data[:caught])
                    await writer.drain()
                if trap is not None and caught is not None:
                    self._trap = None
                    self.reset()
                    trap.sprung.set()
        except OSError:
            pass
        finally:
            # The other direction ends too: half a connection is none.
            writer.transport.abort()

    @property
    def _slice_bytes(self) -> int:
        return max(1, self._bytes_per_s // _SLICES_PER_S) if self._bytes_per_s else _CHUNK_BYTES

    async def _pass(self, data: bytes) -> None:
        """Take the time that the way takes."""
        takes_s = self._delay_s + (len(data) / self._bytes_per_s if self._bytes_per_s else 0.0)
        if takes_s:
            await asyncio.sleep(takes_s)

    @staticmethod
    def _caught(trap: _Trap | None, frames: Frames, data: bytes, *, is_answer: bool) -> int | None:
        """Return where the word ends behind which everything is cut, if it is in the data."""
        if trap is not None and trap.said.is_answer is is_answer:
            return trap.find(frames, data)
        # Whoever looks later must know where frames begin.
        for _ in frames.feed(data):
            pass
        return None

    def _end(self, writers: set[asyncio.StreamWriter]) -> None:
        for writer in tuple(writers - self._ended):
            if writer.can_write_eof() and not writer.is_closing():
                self._ended.add(writer)
                writer.write_eof()
