"""What is encrypted: codec, private headers, payload, padding; and the payload of a fault (docs/spec.md, "Bytes").

It comes from an authenticated sender and is still read with every limit set: a sender may be mistaken or taken over.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

import msgpack

from messaging.core.envelope import CODEC_MSGPACK, CODEC_RAW, Envelope
from messaging.core.values import value
from messaging.errors import ConfigurationError, Disposition, MalformedError, UnsupportedError
from messaging.security.outer import BODY_MAX, CONTENT_MAX_WRAPPING, bin_opening, read_bin
from messaging.security.packed import pack, unpack

__all__ = ["HEADERS_MAX", "Content", "pack_content", "pack_fault", "parse_content", "split_fault"]

HEADERS_MAX: Final = 16 * 1024
FAULT_MAX: Final = 32 * 1024

_ARRAY_OF_5: Final = 0x95
_EMPTY_MAP: Final = 0x80
_HEADERS_AT: Final = 3
_NO_COMPRESSION: Final = 0
_OPENINGS: Final = [bytes((_ARRAY_OF_5, codec, _NO_COMPRESSION)) for codec in range(CODEC_RAW + 1)]
_NO_HEADERS: Final = bytes((_EMPTY_MAP,))
_NO_PADDING: Final = b"\xc4\x00"
_ITEMS_MAX: Final = 1_024


@value
class Content:
    """The opened content of a message.

    Attributes:
        codec: How the payload is encoded.
        headers: Private headers.
        payload: Encoded payload.
    """

    codec: int
    headers: Mapping[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)


def pack_content(*, codec: int, headers: Mapping[str, Any], payload: bytes) -> bytes:
    """Return the plaintext of a message.

    Raises:
        ConfigurationError: The private headers cannot be encoded or are beyond 16 KiB, or the codec is unknown.
    """
    if not CODEC_MSGPACK <= codec <= CODEC_RAW:
        raise ConfigurationError(f"codec {codec} is unknown: use one of the CODEC constants of messaging.core.envelope")
    packed = _pack_headers(headers) if headers else _NO_HEADERS
    return b"".join((_OPENINGS[codec], packed, bin_opening(len(payload)), payload, _NO_PADDING))


def parse_content(plaintext: bytes) -> Content:
    """Parse a plaintext whose tag holds.

    Raises:
        MalformedError: Not the one form of a content.
        UnsupportedError: A codec or a compression that this receiver does not speak.
    """
    if len(plaintext) < _HEADERS_AT + 1 or plaintext[0] != _ARRAY_OF_5:
        raise _malformed("the content is no array of 5 parts")
    codec, compression = plaintext[1], plaintext[2]
    if codec > CODEC_RAW:
        raise UnsupportedError(f"codec {codec} of the content is unknown here", disposition=Disposition.CONTENT)
    if compression != _NO_COMPRESSION:
        raise UnsupportedError(
            f"compression {compression} of the content is unknown here", disposition=Disposition.CONTENT
        )
    headers, at = _parse_headers(plaintext)
    try:
        payload, at = read_bin(plaintext, at, limit=CONTENT_MAX_WRAPPING)
        if plaintext[at:] == _NO_PADDING:
            return Content(codec, headers, payload)
        _padding, at = read_bin(plaintext, at, limit=CONTENT_MAX_WRAPPING)
    except MalformedError as exc:
        raise _malformed("the content has no payload or no padding") from exc
    if at != len(plaintext):
        raise _malformed("bytes after the end of the content")
    return Content(codec, headers, payload)


def pack_fault(original: bytes, fault: Mapping[str, object]) -> bytes:
    """Return the payload of a fault, for an envelope with `CODEC_MSGPACK`.

    Args:
        original: The sealed bytes that failed, unchanged.
        fault: What happened, as plain values.

    Raises:
        ConfigurationError: The fault cannot be encoded or is beyond 32 KiB.
    """
    packed = _packed(fault, what="fault", limit=FAULT_MAX)
    return b"\x92" + pack(original) + packed


def split_fault(envelope: Envelope) -> tuple[bytes, dict[str, Any]]:
    """Return the sealed original and the description from an opened fault.

    Raises:
        MalformedError: The payload is no fault.
    """
    payload = envelope.payload
    if envelope.codec != CODEC_MSGPACK or payload[:1] != b"\x92":
        raise _malformed("the payload of the fault is no pair of original and description")
    try:
        original, at = read_bin(payload, 1, limit=BODY_MAX)
    except MalformedError as exc:
        raise _malformed("the fault carries no original") from exc
    fault = payload[at:]
    if len(fault) > FAULT_MAX:
        raise _malformed(f"the description of the fault is beyond {FAULT_MAX} bytes")
    described = _unpack_map(fault, what="description of the fault")
    return original, described


def _pack_headers(headers: Mapping[str, Any]) -> bytes:
    if not all(type(key) is str for key in headers):
        raise ConfigurationError("private headers have text as keys")
    return _packed(headers, what="private headers", limit=HEADERS_MAX)


def _packed(value: Mapping[str, object], *, what: str, limit: int) -> bytes:
    try:
        packed = pack(dict(value))
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigurationError(f"the {what} must be plain values: text, numbers, bytes, lists and maps") from exc
    if len(packed) > limit:
        raise ConfigurationError(f"the {what} take {len(packed)} bytes; at most {limit} are allowed, shorten them")
    return packed


def _parse_headers(plaintext: bytes) -> tuple[dict[str, Any], int]:
    if plaintext[_HEADERS_AT] == _EMPTY_MAP:
        return {}, _HEADERS_AT + 1
    # Only as much as headers may take is given to the decoder, so a bomb stays as small as its limit.
    section = plaintext[_HEADERS_AT : _HEADERS_AT + HEADERS_MAX]
    unpacker = msgpack.Unpacker(
        raw=False, max_buffer_size=HEADERS_MAX, max_array_len=_ITEMS_MAX, max_map_len=_ITEMS_MAX
    )
    try:
        unpacker.feed(section)
        unpacker.skip()
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise _malformed("the private headers are no valid msgpack within their limits") from exc
    end = unpacker.tell()
    return _unpack_map(section[:end], what="private headers"), _HEADERS_AT + end


def _unpack_map(raw: bytes, *, what: str) -> dict[str, Any]:
    found = unpack(
        raw, what=what, array_max=_ITEMS_MAX, map_max=_ITEMS_MAX, text_max=len(raw), bytes_max=len(raw),
        disposition=Disposition.CONTENT,
    )  # fmt: skip
    if type(found) is not dict or not all(type(key) is str for key in found):
        raise _malformed(f"the {what} are no map with text keys")
    return found


def _malformed(message: str) -> MalformedError:
    return MalformedError(message, disposition=Disposition.CONTENT)
