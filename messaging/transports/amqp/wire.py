"""The frames of AMQP 0-9-1 that every message needs, by hand: publish, confirm, return, deliver, settle.

pamqp writes and reads all other frames, and what is rare in these: header tables, and the first publish to a
destination. What is written here is byte for byte what pamqp writes (`tests/transports/amqp/test_wire.py`).

    frame   = kind (1) · channel (2) · size (4) · payload · 0xCE
    message = publish method, content header, body in pieces of at most frame_max - 8 bytes
"""

import struct
from typing import Final

import pamqp.commands
import pamqp.frame
from pamqp.header import ContentHeader

from messaging.transports.amqp.parcel import CONTENT_TYPE, PERSISTENT, TRANSIENT, Parcel
from messaging.transports.amqp.settlements import How, Settlement

__all__ = [
    "ACK",
    "BLOCKED",
    "BODY",
    "CHANNEL_CLOSE",
    "CHANNEL_CLOSE_OK",
    "CHANNEL_OPEN",
    "CONNECTION_CLOSE",
    "DELIVER",
    "END",
    "FRAME",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "NACK",
    "OVERHEAD_BYTES",
    "RETURN",
    "UNBLOCKED",
    "BrokenFrameError",
    "Encoder",
    "read_body_size",
    "read_confirm",
    "read_content",
    "read_deliver",
    "read_method",
    "read_names",
    "whole_frame",
]

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3

CONNECTION_CLOSE: Final = 10 << 16 | 50
BLOCKED: Final = 10 << 16 | 60
UNBLOCKED: Final = 10 << 16 | 61
CHANNEL_OPEN: Final = 20 << 16 | 10
CHANNEL_CLOSE: Final = 20 << 16 | 40
CHANNEL_CLOSE_OK: Final = 20 << 16 | 41
RETURN: Final = 60 << 16 | 50
DELIVER: Final = 60 << 16 | 60
ACK: Final = 60 << 16 | 80
REJECT: Final = 60 << 16 | 90
NACK: Final = 60 << 16 | 120

END: Final = 0xCE
END_BYTE: Final = b"\xce"
OVERHEAD_BYTES: Final = 8
"""What a frame has besides its payload."""

HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
FRAME: Final = struct.Struct(">BHI")
_WORD: Final = struct.Struct(">I")
_SETTLE: Final = struct.Struct(">BHIIQBB")
_SETTLE_BYTES: Final = 13
_TAG: Final = struct.Struct(">QB")
# The header's frame, up to its properties: kind, channel, size, class, weight, body size, flags.
_HEADER: Final = struct.Struct(">BHIHHQH")
_HEADER_BYTES: Final = 14
_HEADER_START: Final = struct.Struct(">HHQ")
_BEGINNING: Final = struct.Struct(">HH")
_FLAGS: Final = struct.Struct(">H")
_NEXT_BODY: Final = struct.Struct(">BBHI")
# The same up to its size, where that is packed with what stands before it.
_NEXT_BODY_START: Final = struct.Struct(">BBH")
_BASIC: Final = 60
_PAYLOAD_AT: Final = 7

# Bits of the flags, in the order in which properties are written.
_HAS_CONTENT_TYPE: Final = 1 << 15
_HAS_DELIVERY_MODE: Final = 1 << 12
_HAS_EXPIRATION: Final = 1 << 8
_HAS_MESSAGE_ID: Final = 1 << 7
_HAS_TYPE: Final = 1 << 5

_SHORT_BYTES: Final = 255
_ID_BYTES: Final = 32
"""How long the ids of our own messages are: 16 bytes in hexadecimal."""
_ASCII_END: Final = 128
_KNOWN: Final = 1024
"""How many destinations and types are remembered; beyond that, all are forgotten and learnt again."""


class BrokenFrameError(ConnectionError):
    """The broker's bytes are no frames of AMQP: from here on nothing that the connection says can be understood."""


class _Plan:
    # What all messages of one type to one place share.

    __slots__ = ("after", "before", "ending", "flags", "middle", "opening", "publish", "usual")

    def __init__(self, parcel: Parcel, channel: int) -> None:
        route, kind = parcel.route, parcel.label.type
        method = pamqp.commands.Basic.Publish(
            exchange=route.exchange, routing_key=route.routing_key, mandatory=route.mandatory
        )
        self.publish = pamqp.frame.marshal(method, channel)
        # What is written before the expiration and after the id.
        self.before = _short(CONTENT_TYPE) + bytes((PERSISTENT if route.persistent else TRANSIENT,))
        self.after = _short(kind) if kind else b""
        self.flags = _HAS_CONTENT_TYPE | _HAS_DELIVERY_MODE | _HAS_MESSAGE_ID | (_HAS_TYPE if kind else 0)
        # The usual message has an id of ours and no expiration: all but sizes, id and body stays the same.
        size = _HEADER_BYTES + len(self.before) + 1 + _ID_BYTES + len(self.after)
        self.opening = self.publish + FRAME.pack(HEADER, channel, size) + _BEGINNING.pack(_BASIC, 0)
        self.middle = _FLAGS.pack(self.flags) + self.before + bytes((_ID_BYTES,))
        self.ending = self.after + _NEXT_BODY_START.pack(END, BODY, channel)
        self.usual = struct.Struct(f">{len(self.opening)}sQ{len(self.middle)}s{_ID_BYTES}s{len(self.ending)}sI")


class Encoder:
    """Writes the frames of one channel.

    Args:
        channel: Its number.
        frame_max: The largest frame that the broker takes, bytes.
    """

    def __init__(self, channel: int, *, frame_max: int) -> None:
        self._channel = channel
        self._max_body = frame_max - OVERHEAD_BYTES
        self._plans: dict[tuple[str, str, bool, bool, str], _Plan] = {}

    def publish(self, parcel: Parcel, out: list[bytes]) -> None:
        """Append the frames of a message to `out`, all or none.

        Raises:
            ValueError, TypeError: A name or property cannot be written as AMQP.
        """
        route, label, body = parcel.route, parcel.label, parcel.body
        key = (route.exchange, route.routing_key, route.mandatory, route.persistent, label.type)
        plan = self._plans.get(key) or self._planned(key, parcel)
        name, size = parcel.message_id.encode(), len(body)
        if (
            label.attempt <= 1
            and label.first_failed_ms is None
            and route.expiration_ms is None
            and len(name) == _ID_BYTES
            and 0 < size <= self._max_body
        ):
            out += (plan.usual.pack(plan.opening, size, plan.middle, name, plan.ending, size), body, END_BYTE)
        else:
            self._publish(parcel, plan, out)

    def _publish(self, parcel: Parcel, plan: _Plan, out: list[bytes]) -> None:
        publish, header = plan.publish, self._header(parcel, plan)
        body, channel = parcel.body, self._channel
        size = len(body)
        if 0 < size <= self._max_body:
            out += (publish, header, _NEXT_BODY.pack(END, BODY, channel, size), body, END_BYTE)
            return
        out += (publish, header, END_BYTE)
        for start in range(0, size, self._max_body):
            piece = body[start : start + self._max_body]
            out += (FRAME.pack(BODY, channel, len(piece)), piece, END_BYTE)

    def settlement(self, settlement: Settlement) -> bytes:
        """Return the frame that tells the broker what happened to deliveries."""
        tag, channel = settlement.tag, self._channel
        match settlement.how:
            case How.ACK:
                return _SETTLE.pack(METHOD, channel, _SETTLE_BYTES, ACK, tag, settlement.multiple, END)
            case How.REJECT:
                return _SETTLE.pack(METHOD, channel, _SETTLE_BYTES, REJECT, tag, 1, END)
            case How.GIVE_BACK:
                # The second bit asks for its return to the queue.
                return _SETTLE.pack(METHOD, channel, _SETTLE_BYTES, NACK, tag, 2, END)

    def _planned(self, key: tuple[str, str, bool, bool, str], parcel: Parcel) -> _Plan:
        if len(self._plans) >= _KNOWN:
            self._plans.clear()
        plan = self._plans[key] = _Plan(parcel, self._channel)
        return plan

    def _header(self, parcel: Parcel, plan: _Plan) -> bytes:
        """Return the content header's frame without the byte that ends it."""
        label, route = parcel.label, parcel.route
        size = len(parcel.body)
        if label.attempt > 1 or label.first_failed_ms is not None:
            header = ContentHeader(body_size=size, properties=parcel.properties)
            return pamqp.frame.marshal(header, self._channel)[:-1]
        flags, properties = plan.flags, plan.before
        if route.expiration_ms is not None:
            flags |= _HAS_EXPIRATION
            properties += _short(str(max(0, route.expiration_ms)))
        properties += _short(parcel.message_id) + plan.after
        return _HEADER.pack(HEADER, self._channel, _HEADER_BYTES + len(properties), _BASIC, 0, size, flags) + properties


def whole_frame(channel: int, payload: bytes) -> bytes:
    """Return the frame of a method's payload, as pamqp wants to read it."""
    return FRAME.pack(METHOD, channel, len(payload)) + payload + END_BYTE


def read_method(data: bytes, start: int) -> int:
    """Return class and method of a method frame's payload, as one number."""
    (method,) = _WORD.unpack_from(data, start)
    return int(method)


def read_confirm(data: bytes, start: int) -> tuple[int, bool]:
    """Return the tag of a confirm, and whether it speaks of all tags up to it."""
    tag, bits = _TAG.unpack_from(data, start + 4)
    return tag, bool(bits & 1)


def read_deliver(data: bytes, start: int, end: int) -> tuple[int, bool, bytes]:
    """Return tag, mark of redelivery, and the bytes that `read_names` understands."""
    at = start + 5 + data[start + 4]
    tag, bits = _TAG.unpack_from(data, at)
    return tag, bool(bits & 1), data[at + 9 : end]


def read_names(names: bytes) -> tuple[str, str]:
    """Return exchange and routing key. What is no UTF-8 in them is shown as question marks: nobody is to be stopped.

    Raises:
        BrokenFrameError: They do not fill the bytes.
    """
    split = 1 + names[0]
    if len(names) != split + 1 + names[split]:
        raise BrokenFrameError("a delivery's names are cut short")
    return _text(names[1:split]), _text(names[split + 1 :])


def read_body_size(data: bytes, start: int, end: int) -> int:
    """Return how many bytes of body follow a content header.

    Raises:
        BrokenFrameError: It is no header of a message.
    """
    kind, _, size = _HEADER_START.unpack_from(data, start)
    if kind != _BASIC or end - start < _HEADER_BYTES:
        raise BrokenFrameError(f"a content header of class {kind} and {end - start} bytes")
    return int(size)


def read_content(data: bytes, at: int, channel: int, frame_max: int) -> tuple[bytes, bytes, int] | None:
    """Return a message's content header, its body, and where they end, when both are there in one frame each.

    None says only that it is not so simple: more frames, none of them whole, or broken ones.
    """
    available = len(data)
    start = at + _PAYLOAD_AT
    if available < start + _HEADER_BYTES:
        return None
    kind, number, size = FRAME.unpack_from(data, at)
    basic, _, body_size = _HEADER_START.unpack_from(data, start)
    end = start + size
    body_start = end + 1 + _PAYLOAD_AT
    body_end = body_start + body_size
    if (
        kind != HEADER
        or number != channel
        or basic != _BASIC
        or size < _HEADER_BYTES
        or not body_size
        or available <= body_end
        or max(size, body_size) + OVERHEAD_BYTES > frame_max
        or data[end] != END
        or data[body_end] != END
        or FRAME.unpack_from(data, end + 1) != (BODY, channel, body_size)
    ):
        return None
    return data[start:end], data[body_start:body_end], body_end + 1


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > _SHORT_BYTES:
        raise ValueError(f"{len(data)} bytes are more than the {_SHORT_BYTES} of a short string")
    return bytes((len(data),)) + data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return bytes(byte if byte < _ASCII_END else ord("?") for byte in data).decode("ascii")
