"""The channel numbers of one connection, as the broker sees them: given out, and let go of when its stream says so.

A number is the broker's from our Open until both closes are answered. aiormq forgets it earlier: when it reads the
broker's Close, before it has written the Close-Ok, and without one at all while its write queue is full. An Open under
such a number ends the whole connection ("second 'channel.open' seen"), and so does any frame behind a close.

    number   free ── take ──► taken ── Open ──► open ── our Close ──► closing ── Close-Ok ──► free
                                                  └── broker's Close: answered at once ─────► free

Rules: the Close-Ok is ours and leaves in the step in which aiormq reads the Close; behind a close nothing is written
under that number but the next Open; numbers are given out in turn, so one that was let go of rests the longest.
"""

import asyncio
from collections.abc import Callable, Container
from enum import Enum, auto
from typing import Final

import pamqp.commands
import pamqp.frame

from messaging.errors import ConnectionLostError
from messaging.transports.amqp.wire import (
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CHANNEL_OPEN,
    FRAME,
    METHOD,
    read_method,
)

__all__ = ["ChannelNumbers", "GuardedWriter"]

_PAYLOAD_AT: Final = 7
# AMQP 0-9-1, 2.3.5: a channel number has 16 bits, and a broker that names no bound (0) sets no other.
_HIGHEST: Final = 0xFFFF
# What belongs to a channel: methods, content headers, bodies; not heartbeats, nor the greeting ("A").
_OF_CHANNELS: Final = frozenset({1, 2, 3})
_CLOSE_OK: Final = pamqp.commands.Channel.CloseOk()


class _State(Enum):
    TAKEN = auto()
    OPEN = auto()
    CLOSING = auto()


class ChannelNumbers:
    """Which numbers are whose.

    Attributes:
        answer: Writes the answer to the broker's Close; None while there is no socket.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], None] | None = None
        self._states: dict[int, _State] = {}
        self._last = 0

    def take(self, *, known: Container[int], highest: int) -> int:
        """Return a number that neither the broker nor the client library holds; `give_back` it if it is not opened.

        Args:
            known: What the client library holds.
            highest: The largest number that was agreed with the broker; 0 means no bound.

        Raises:
            ConnectionLostError: All are in use.
        """
        highest = highest or _HIGHEST
        for step in range(highest):
            number = (self._last + step) % highest + 1
            if number not in self._states and number not in known:
                self._last = number
                self._states[number] = _State.TAKEN
                return number
        raise ConnectionLostError(f"all {highest} channels of the connection are open; raise the broker's channel_max")

    def give_back(self, number: int) -> None:
        """Let go of a number whose Open was not written; of others the broker decides."""
        if self._states.get(number) is _State.TAKEN:
            del self._states[number]

    def note_read(self, number: int, method: int) -> None:
        """Take note of a method that the broker sent, before the client library does."""
        state = self._states.get(number)
        if method == CHANNEL_CLOSE and state in (_State.OPEN, _State.CLOSING):
            # Crossed by a Close of ours, it is answered too, and the number is the broker's until it answers that one.
            if state is _State.OPEN:
                del self._states[number]
            if self.answer is not None:
                self.answer(pamqp.frame.marshal(_CLOSE_OK, number))
        elif method == CHANNEL_CLOSE_OK and state is _State.CLOSING:
            del self._states[number]

    def may_write(self, data: bytes) -> bool:
        """Tell whether the client library's frames may leave, and take note of what they open and close.

        Args:
            data: Whole frames of one channel.
        """
        if len(data) < _PAYLOAD_AT or data[0] not in _OF_CHANNELS:
            return True
        number = FRAME.unpack_from(data)[1]
        if number == 0:
            return True
        method = read_method(data, _PAYLOAD_AT) if data[0] == METHOD else None
        if method == CHANNEL_OPEN:
            self._states[number] = _State.OPEN
            return True
        if self._states.get(number) is not _State.OPEN:
            return False
        if method == CHANNEL_CLOSE:
            self._states[number] = _State.CLOSING
        return True


class GuardedWriter(asyncio.StreamWriter):
    """What aiormq writes to: nothing leaves under a number that is closed.

    Args:
        transport: The socket.
        protocol: Its protocol.
        reader: What aiormq reads from.
        numbers: Of this connection.
        on_write: Told of what leaves, before it does.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        *,
        numbers: ChannelNumbers,
        on_write: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(transport, protocol, reader, asyncio.get_running_loop())
        self._numbers = numbers
        self._on_write = on_write
        numbers.answer = self._answer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write what aiormq has to say, if it may be said."""
        frames = bytes(data)
        if not self._numbers.may_write(frames):
            return
        if self._on_write is not None:
            self._on_write(frames)
        super().write(frames)

    def _answer(self, frame: bytes) -> None:
        if not self.is_closing():
            super().write(frame)
