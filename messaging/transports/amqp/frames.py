"""Reads the broker's bytes on their way to aiormq, through the door that aiormq offers for it (`TransportFactory`).

It hands on every frame that aiormq can read, unchanged, and does three things that aiormq does not:

- it notes why the broker closes or blocks the connection, which aiormq loses or only logs;
- it tells which channels the broker closes (`channel_numbers`), before aiormq forgets them;
- it empties the properties, or mends the routing key, of a message that pamqp cannot decode: a stranger's invalid UTF-8
  would otherwise end the connection, come back with the next one, and end that too. The body is judged as any other.
  Properties that would take too long to decode are emptied too.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Final

import pamqp.commands
import pamqp.frame

from messaging.transports.amqp.arrival import HEADER_MAX_BYTES, UNREADABLE
from messaging.transports.amqp.channel_numbers import ChannelNumbers
from messaging.transports.amqp.errors import Refusal
from messaging.transports.amqp.wire import FRAME, read_method

__all__ = ["FrameReader"]

_HEAD_BYTES: Final = 7
# Far beyond any frame size that brokers are configured with (RabbitMQ: 128 KiB).
_FRAME_MAX_BYTES: Final = 16 * 1024 * 1024
_METHOD: Final = 1
_CONTENT_HEADER: Final = 2
# Class, weight, body size and the flags come first; after them the properties, of which an empty list has none.
_FLAGS_AT: Final = 12
_PROPERTIES_AT: Final = 14
_END: Final = b"\xce"
_CLOSE: Final = struct.pack(">HH", 10, 50)
_BLOCKED: Final = struct.pack(">HH", 10, 60)
_UNBLOCKED: Final = struct.pack(">HH", 10, 61)
_CHANNEL_CLOSES: Final = frozenset({struct.pack(">HH", 20, 40), struct.pack(">HH", 20, 41)})
_DELIVER: Final = struct.pack(">HH", 60, 60)
# In a Deliver: the consumer tag, then eight bytes of delivery tag and one of flags, then exchange and routing key.
_TAG_AT: Final = 4
_DELIVERY_TAG_BYTES: Final = 9
_ASCII_END: Final = 128


class FrameReader(asyncio.StreamReader):
    """A stream of AMQP frames.

    Args:
        on_blocked: Called with the broker's reason when it blocks the connection, and with None when it goes on.
        numbers: Of this connection.
    """

    def __init__(self, on_blocked: Callable[[str | None], None], numbers: ChannelNumbers) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.refusal: Refusal | None = None
        self._on_blocked = on_blocked
        self._numbers = numbers
        self._head = b""

    async def readexactly(self, n: int) -> bytes:
        """Return the next `n` bytes; aiormq asks for 1, then 6, then the rest of a frame."""
        if n > _FRAME_MAX_BYTES:
            # A lie, or no AMQP at all: waiting for it would keep all that comes until then in memory.
            raise asyncio.IncompleteReadError(b"", n)
        data = await super().readexactly(n)
        if len(self._head) < _HEAD_BYTES:
            self._head += data
            return data
        head, self._head = self._head, b""
        if head[0] == _CONTENT_HEADER:
            if len(data) > HEADER_MAX_BYTES + len(_END):
                return _without_properties(data)
            return _readable(head, data, _without_properties)
        if head[0] == _METHOD:
            if data[:4] == _DELIVER and not data.isascii():
                return _readable(head, data, _with_ascii_names)
            self._note(head, data)
        return data

    def _note(self, head: bytes, data: bytes) -> None:
        method = data[:4]
        if method in _CHANNEL_CLOSES:
            self._numbers.note_read(FRAME.unpack(head)[1], read_method(data, 0))
        elif method == _UNBLOCKED:
            self._on_blocked(None)
        elif method in {_CLOSE, _BLOCKED}:
            frame = pamqp.frame.unmarshal(head + data)[2]
            if isinstance(frame, pamqp.commands.Connection.Close):
                self.refusal = Refusal(frame.reply_code or 0, frame.reply_text or "")
            elif isinstance(frame, pamqp.commands.Connection.Blocked):
                self._on_blocked(frame.reason or "alarm")


def _readable(head: bytes, data: bytes, repair: Callable[[bytes], bytes]) -> bytes:
    # The second decoding costs some microseconds; guessing from the bytes which ones pamqp takes would be a parser.
    try:
        pamqp.frame.unmarshal(head + data)
    except UNREADABLE:
        return repair(data)
    return data


def _without_properties(data: bytes) -> bytes:
    # aiormq has read the frame's size already, so the length stays: pamqp ignores what follows empty flags.
    return data[:_FLAGS_AT] + b"\x00\x00" + bytes(len(data) - _PROPERTIES_AT - 1) + _END


def _with_ascii_names(data: bytes) -> bytes:
    names_at = _TAG_AT + 1 + data[_TAG_AT] + _DELIVERY_TAG_BYTES
    return data[:names_at] + bytes(byte if byte < _ASCII_END else ord("?") for byte in data[names_at:-1]) + _END
