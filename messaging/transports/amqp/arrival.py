"""One message as a channel hands it over: bytes, where from, and the few properties that a delivery may be asked for.

Nothing of the properties is decoded before somebody asks. They are a stranger's: what cannot be read is not there.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, Protocol

import pamqp.exceptions
from aiormq.abc import DeliveredMessage
from pamqp.header import ContentHeader

__all__ = ["HEADER_MAX_BYTES", "UNREADABLE", "Arrival", "Message", "Received"]

UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    RecursionError,
    struct.error,
    pamqp.exceptions.PAMQPException,
)
"""What pamqp raises for bytes that it cannot decode."""

HEADER_MAX_BYTES: Final = 8_192
"""How long a content header may be whose table is read.

pamqp copies the rest of a table for each of its entries: the 128 KiB that fit into a frame cost 0.2 s of event loop,
and whoever can publish may send them again and again. Ours have two numbers and what the broker adds.
"""

_FLAGS_AT: Final = 12
_PROPERTIES_AT: Final = 14
# Bits of the flags and, in the order of the properties, how each is passed over: None is a string with one byte of
# length, 0 a table with four, another number that many bytes.
_MESSAGE_ID: Final = 1 << 7
_TYPE: Final = 1 << 5
_HEADERS: Final = 1 << 13
_MORE_FLAGS: Final = 1
# What our own publishers write: content type, mode of one byte, message id, type.
_OURS: Final = 1 << 15 | 1 << 12 | _MESSAGE_ID | _TYPE
_ORDER: Final = (
    (1 << 15, None),
    (1 << 14, None),
    (_HEADERS, 0),
    (1 << 12, 1),
    (1 << 11, 1),
    (1 << 10, None),
    (1 << 9, None),
    (1 << 8, None),
    (_MESSAGE_ID, None),
    (1 << 6, 8),
    (_TYPE, None),
)


class Message(Protocol):
    """One message that came over a channel."""

    @property
    def body(self) -> bytes:
        """The bytes as they came."""

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel."""

    @property
    def redelivered(self) -> bool:
        """The broker's mark."""

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""

    @property
    def message_id(self) -> str | None:
        """The property."""

    @property
    def type(self) -> str | None:
        """The property."""

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table; empty when there is none."""


class Arrival:
    """A message with its properties as bytes.

    Args:
        tag: Its number on the channel.
        redelivered: The broker's mark.
        names: Exchange and routing key.
        header: The payload of its content header.
        body: The bytes.
    """

    __slots__ = ("_header", "_headers", "_names", "body", "delivery_tag", "redelivered")

    def __init__(self, tag: int, redelivered: bool, names: tuple[str, str], header: bytes, body: bytes) -> None:
        self.body = body
        self.delivery_tag = tag
        self.redelivered = redelivered
        self._names = names
        self._header = header
        self._headers: Mapping[str, Any] | None = None

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""
        return self._names[0]

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""
        return self._names[1]

    @property
    def message_id(self) -> str | None:
        """The property."""
        return short_property(self._header, _MESSAGE_ID)

    @property
    def type(self) -> str | None:
        """The property."""
        return short_property(self._header, _TYPE)

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table; empty when there is none."""
        if self._headers is None:
            self._headers = _headers(self._header)
        return self._headers


class Received:
    """A message as aiormq read it."""

    __slots__ = ("_message", "body", "delivery_tag")

    def __init__(self, message: DeliveredMessage) -> None:
        self.body = message.body
        self.delivery_tag = message.delivery_tag or 0
        self._message = message

    @property
    def redelivered(self) -> bool:
        """The broker's mark."""
        return bool(self._message.redelivered)

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""
        return self._message.exchange or ""

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""
        return self._message.routing_key or ""

    @property
    def message_id(self) -> str | None:
        """The property."""
        return self._message.header.properties.message_id

    @property
    def type(self) -> str | None:
        """The property."""
        return self._message.header.properties.message_type

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table; empty when there is none."""
        return self._message.header.properties.headers or {}


def message_id_of(header: bytes) -> str | None:
    """Return the id in a content header's payload."""
    return short_property(header, _MESSAGE_ID)


def short_property(header: bytes, wanted: int) -> str | None:
    """Return a property that is a short string, or None when it is not there or cannot be read."""
    flags = header[_FLAGS_AT] << 8 | header[_FLAGS_AT + 1]
    if not flags & wanted or flags & _MORE_FLAGS:
        return None
    try:
        return _short_at(header, _position(header, flags, wanted))
    except (IndexError, UnicodeDecodeError):
        return None


def _position(header: bytes, flags: int, wanted: int) -> int:
    at = _PROPERTIES_AT
    if flags == _OURS:
        at += 2 + header[at]
        return at if wanted == _MESSAGE_ID else at + 1 + header[at]
    for size in _passed_over(flags, wanted):
        if size is None:
            at += 1 + header[at]
        else:
            at += size or 4 + int.from_bytes(header[at : at + 4], "big")
    return at


@lru_cache(maxsize=256)
def _passed_over(flags: int, wanted: int) -> tuple[int | None, ...]:
    # Messages of one sender carry the same properties, so this is found out once for each kind of them.
    before = takewhile(lambda entry: entry[0] != wanted, _ORDER)
    return tuple(size for flag, size in before if flags & flag)


def _short_at(header: bytes, at: int) -> str:
    end = at + 1 + header[at]
    if end > len(header):
        raise IndexError(end)
    return header[at + 1 : end].decode()


def _headers(header: bytes) -> Mapping[str, Any]:
    if not (header[_FLAGS_AT] << 8) & _HEADERS or len(header) > HEADER_MAX_BYTES:
        return {}
    content = ContentHeader()
    try:
        content.unmarshal(header)
    except UNREADABLE:
        return {}
    return content.properties.headers or {}
