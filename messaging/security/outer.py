"""The outermost shape of a sealed message: eight parts, cut by hand (docs/spec.md, "Bytes").

A general decoder would build whatever the bytes claim to be before anything is known about them. Here each part's type
and length is read from its first bytes and checked against its limit before it is cut out, so junk costs nothing; only
the shortest encoding is accepted, so a message has exactly one form.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

from messaging.core.values import value
from messaging.errors import MalformedError, SealError, UnsupportedError
from messaging.security import merkle
from messaging.security.suite import leaf_of_parts, sha256

__all__ = [
    "BODY_MAX",
    "CONTENT_MAX",
    "CONTENT_MAX_WRAPPING",
    "Parts",
    "batch_share",
    "bin_opening",
    "join_parts",
    "join_shared",
    "leaf_of",
    "read_bin",
    "split_parts",
]

VERSION: Final = 1
HEADER_MAX: Final = 4_096
BLOCK_MAX: Final = 24_576
PATH_MAX: Final = 224
# A payload at the cap of 4 MiB, with room for the tag and the frame of the plaintext.
CONTENT_MAX: Final = 4 * 1024 * 1024 + 64
# Faults and replays carry a whole sealed message, which may itself be at the cap.
CONTENT_MAX_WRAPPING: Final = CONTENT_MAX + 64 * 1024
BODY_MAX: Final = CONTENT_MAX_WRAPPING + 32 * 1024
SIGNATURE_BYTES: Final = 64

_ARRAY_OF_8: Final = 0x98
_BIN_8, _BIN_16, _BIN_32, _UINT_8 = 0xC4, 0xC5, 0xC6, 0xCC
_POSITIVE_FIXINT_MAX: Final = 0x7F
_OPENING: Final = bytes((_ARRAY_OF_8, VERSION))
_SIGNATURE_OPENING: Final = bytes((_BIN_8, SIGNATURE_BYTES))
_SIGNATURE_MARK: Final = int.from_bytes(_SIGNATURE_OPENING, "big")
# Signature, size, index and the opening of a path, for batches of up to 127.
_ENDING: Final = Struct(f">H{SIGNATURE_BYTES}sBBBB")


@value
class Parts:
    """The parts of a sealed message, as bytes that nobody has believed yet.

    Attributes:
        header, block, content: Header, key block and ciphertext.
        signature: 64 bytes over the batch that the message is part of.
        size, index: How many messages the batch has and which of them this is.
        path: Hashes from this message's leaf to the root.
    """

    header: bytes
    block: bytes
    content: bytes
    signature: bytes
    size: int
    index: int
    path: bytes

    def leaf(self) -> bytes:
        """Return the digest that the signature covers for this message."""
        return leaf_of_parts(self.header, sha256(self.block), self.content)


def split_parts(body: bytes) -> Parts:
    """Cut a message into its parts.

    Raises:
        MalformedError: Not this shape, a part beyond its limit, or not the shortest encoding.
        UnsupportedError: Another version of the format.
    """
    if body[:2] != _OPENING or len(body) > BODY_MAX:
        raise _refused_opening(body)
    header, at = read_bin(body, 2, limit=HEADER_MAX)
    block, at = read_bin(body, at, limit=BLOCK_MAX)
    content, at = read_bin(body, at, limit=CONTENT_MAX_WRAPPING)
    if at + _ENDING.size <= len(body):
        # All but a batch of 128: what follows the content in one step.
        mark, signature, size, index, kind, path_size = _ENDING.unpack_from(body, at)
        at += _ENDING.size
        if (
            mark == _SIGNATURE_MARK
            and index < size <= _POSITIVE_FIXINT_MAX
            and kind == _BIN_8
            and path_size == len(body) - at == merkle.path_length(size, index)
        ):
            return Parts(header, block, content, signature, size, index, body[at:])
        at -= _ENDING.size
    return _split_ending(body, at, header, block, content)


def _split_ending(body: bytes, at: int, header: bytes, block: bytes, content: bytes) -> Parts:
    if body[at : at + 2] != _SIGNATURE_OPENING:
        raise MalformedError("the signature is no 64 bytes")
    signature = body[at + 2 : (at := at + 2 + SIGNATURE_BYTES)]
    size, at = _read_small(body, at)
    index, at = _read_small(body, at)
    path, at = read_bin(body, at, limit=PATH_MAX)
    if at != len(body):
        raise MalformedError("bytes after the end of the sealed message")
    if not (index < size <= merkle.BATCH_MAX and len(path) == merkle.path_length(size, index)):
        raise MalformedError(f"message {index} of a batch of {size}, with a path of {len(path)} bytes, cannot be")
    return Parts(header, block, content, signature, size, index, path)


def join_parts(parts: Parts) -> bytes:
    """Return the bytes of a message; the inverse of `split_parts`."""
    share = batch_share(parts.signature, parts.size)
    return join_shared(parts.header, parts.block, parts.content, share, parts.index, parts.path)


def batch_share(signature: bytes, size: int) -> bytes:
    """Return what all messages of a batch have in common, for `join_shared`."""
    return _SIGNATURE_OPENING + signature + _SMALL[size]


def join_shared(header: bytes, block: bytes, content: bytes, share: bytes, index: int, path: bytes) -> bytes:
    """Return the bytes of a message of a batch.

    Args:
        header: Header.
        block: Key block.
        content: Ciphertext.
        share: What `batch_share` returned.
        index: Which message of the batch it is.
        path: Hashes from its leaf to the root.
    """
    return b"".join(
        (
            _OPENING,
            bin_opening(len(header)),
            header,
            bin_opening(len(block)),
            block,
            bin_opening(len(content)),
            content,
            share,
            _SMALL[index],
            bin_opening(len(path)),
            path,
        )
    )


def leaf_of(sealed: bytes) -> bytes:
    """Return the leaf of a sealed message: the 32 bytes that replies, faults and replays name it by.

    Raises:
        MalformedError, UnsupportedError: Not a sealed message.
    """
    return split_parts(sealed).leaf()


# Parts of messages have few lengths: those of a sender's headers, of its data keys, of paths, of its usual contents.
@lru_cache(maxsize=1_024)
def bin_opening(size: int) -> bytes:
    """Return what msgpack writes before a byte string of a size."""
    if size < 1 << 8:
        return bytes((_BIN_8, size))
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def read_bin(body: bytes, at: int, *, limit: int) -> tuple[bytes, int]:
    """Read one msgpack bin at an offset, in its shortest encoding.

    Returns:
        The bytes, and the offset behind them.

    Raises:
        MalformedError: Another type, a longer encoding than needed, beyond `limit`, or cut short.
    """
    kind = body[at] if at + 2 < len(body) else 0
    if kind == _BIN_8:
        size, start = body[at + 1], at + 2
    elif kind == _BIN_16 and body[at + 1]:
        # Its first byte is not 0, so the length has no shorter form.
        size, start = body[at + 1] << 8 | body[at + 2], at + 3
    else:
        size, start = _read_any(body, at)
    if size > limit:
        raise MalformedError(f"a part of the message claims {size} bytes; at most {limit} are allowed")
    end = start + size
    if end > len(body):
        raise MalformedError("the message is cut short")
    return body[start:end], end


def _read_any(body: bytes, at: int) -> tuple[int, int]:
    # Size and start of a bin of any kind; `read_bin` has short cuts for the two that messages are made of.
    kind = body[at] if at < len(body) else 0
    if kind == _BIN_8:
        start, shortest = at + 2, 0
    elif kind == _BIN_16:
        start, shortest = at + 3, 1 << 8
    elif kind == _BIN_32:
        start, shortest = at + 5, 1 << 16
    else:
        raise MalformedError("a part of the message is no byte string")
    size = int.from_bytes(body[at + 1 : start], "big")
    if size < shortest:
        raise MalformedError("the length of a part is not in its shortest form")
    return size, start


def _refused_opening(body: bytes) -> SealError:
    if not 2 <= len(body) <= BODY_MAX:
        return MalformedError(f"a sealed message has 2 to {BODY_MAX} bytes, not {len(body)}")
    if body[0] != _ARRAY_OF_8:
        return MalformedError("not a sealed message: the body is no array of 8 parts")
    if body[1] > _POSITIVE_FIXINT_MAX:
        return MalformedError("not a sealed message: the version is no small integer")
    return UnsupportedError(f"version {body[1]} of the sealed message; this receiver speaks version {VERSION}")


def _read_small(body: bytes, at: int) -> tuple[int, int]:
    first = body[at] if at < len(body) else 0xFF
    if first <= _POSITIVE_FIXINT_MAX:
        return first, at + 1
    if first == _UINT_8 and at + 1 < len(body) and body[at + 1] > _POSITIVE_FIXINT_MAX:
        return body[at + 1], at + 2
    raise MalformedError("a place in the batch is no small integer")


# The encodings of 0 to 255; a batch has at most 128 messages, which is not for the writer to check.
_SMALL: Final = [
    bytes((number,)) if number <= _POSITIVE_FIXINT_MAX else bytes((_UINT_8, number)) for number in range(256)
]
