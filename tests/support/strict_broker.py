"""A broker of two dozen lines that knows channels only, and is as strict about their numbers as RabbitMQ is.

It speaks the real protocol over a real socket, so the client library in front of it is the real one. What RabbitMQ ends
the whole connection for is kept in `complaints`, and the connection ended.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Final, Self

import pamqp.frame
from pamqp.commands import Channel, Confirm, Connection, Queue
from pamqp.header import ProtocolHeader
from pamqp.heartbeat import Heartbeat

__all__ = ["StrictBroker"]

_HEAD_BYTES: Final = 7
_GREETING: Final = len(ProtocolHeader().marshal())
_GONE: Final = Channel.Close(404, "NOT_FOUND - no queue", 50, 10)


class StrictBroker:
    """Listens on 127.0.0.1:`port`; looked at queues do not exist, and it says so when enough were asked for.

    Args:
        channel_max: The largest channel number.
        answers_at: How many questions about queues it lets come together, to answer them with one write.
        crosses: Whether it closes each channel itself in the moment in which the client does.

    Attributes:
        complaints: Why it ended connections.
        open: The numbers of open channels.
        closing: Those whose Close it waits to have answered.
        opened_total: How many channels were opened.
    """

    def __init__(self, *, channel_max: int = 2047, answers_at: int = 1, crosses: bool = False) -> None:
        self.port = 0
        self.complaints: list[str] = []
        self.open: set[int] = set()
        self.closing: set[int] = set()
        self.opened_total = 0
        self.answers_at = answers_at
        self._channel_max = channel_max
        self._crosses = crosses
        self._asked: list[int] = []
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.transport.abort()

    @property
    def url(self) -> str:
        """Its address."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def close(self, *numbers: int) -> None:
        """Close channels, with one write."""
        self.open.difference_update(numbers)
        self.closing.update(numbers)
        self._say(*((number, _GONE) for number in numbers))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(_GREETING)
            self._say((0, Connection.Start(0, 9, {"capabilities": {"publisher_confirms": True}}, "PLAIN", "en_US")))
            while not self.complaints:
                head = await reader.readexactly(_HEAD_BYTES)
                rest = await reader.readexactly(int.from_bytes(head[3:7], "big") + 1)
                _, number, frame = pamqp.frame.unmarshal(head + rest)
                self._of_connection(frame) if number == 0 else self._of_channel(number, frame)
        writer.transport.abort()

    def _of_connection(self, frame: Any) -> None:
        match frame:
            case Connection.StartOk():
                self._say((0, Connection.Tune(self._channel_max, 131_072, 60)))
            case Connection.Open():
                self._say((0, Connection.OpenOk()))
            case Connection.Close():
                self._say((0, Connection.CloseOk()))
            case Connection.TuneOk() | Connection.CloseOk() | Heartbeat():
                pass
            case _:
                self.complaints.append(f"unexpected {frame.name}")

    def _of_channel(self, number: int, frame: Any) -> None:
        match frame:
            case Channel.Open() if number > self._channel_max:
                self.complaints.append(f"channel {number} of {self._channel_max}")
            case Channel.Open() if number in self.open | self.closing:
                self.complaints.append(f"second 'channel.open' seen on {number}")
            case Channel.Open():
                self.open.add(number)
                self.opened_total += 1
                self._say((number, Channel.OpenOk()))
            case Channel.Close() if number in self.closing:
                self._say((number, Channel.CloseOk()))
            case Channel.CloseOk() if number in self.closing:
                self.closing.discard(number)
            case _ if number in self.closing:
                pass
            case _ if number not in self.open:
                self.complaints.append(f"expected 'channel.open' on {number}, not {frame.name}")
            case _:
                self._of_open_channel(number, frame)

    def _of_open_channel(self, number: int, frame: Any) -> None:
        match frame:
            case Channel.Close():
                if self._crosses:
                    self.close(number)
                else:
                    self.open.discard(number)
                self._say((number, Channel.CloseOk()))
            case Confirm.Select():
                self._say((number, Confirm.SelectOk()))
            case Queue.Declare():
                self._asked.append(number)
                if len(self._asked) >= self.answers_at:
                    asked, self._asked = self._asked, []
                    self.close(*asked)
            case _:
                self.complaints.append(f"unexpected {frame.name}")

    def _say(self, *frames: tuple[int, Any]) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(pamqp.frame.marshal(frame, number) for number, frame in frames))
