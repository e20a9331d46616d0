"""Frames of AMQP 0-9-1 in a stream of bytes: which methods are in it, and where each of them ends.

type 1 byte | channel 2 bytes | size 4 bytes | payload of that size | end 1 byte
"""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import Final

__all__ = ["BANNER_BYTES", "Frames", "Said"]

# What a client says first is no frame.
BANNER_BYTES: Final = 8
_HEAD: Final = struct.Struct(">BHI")
_METHOD: Final = struct.Struct(">HH")
_IS_METHOD: Final = 1


class Said(Enum):
    """A word of one side: class, method, and whether the broker says it."""

    CONFIRM = (60, 80, True)
    DELIVER = (60, 60, True)
    ACK = (60, 80, False)

    @property
    def method(self) -> bytes:
        """Return how its payload begins."""
        return _METHOD.pack(*self.value[:2])

    @property
    def is_answer(self) -> bool:
        """Whether the broker says it."""
        return self.value[2]


class Frames:
    """Follows one direction of a connection from its first byte, however the bytes are cut into pieces.

    Args:
        skipped: How many bytes at the beginning are no frame.
    """

    def __init__(self, *, skipped: int = 0) -> None:
        self._left = skipped
        self._head = b""
        self._method = b""
        self._is_method = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield where in the data each frame of a method ends, and the four bytes that say which method it is."""
        at = 0
        while at < len(data):
            if not self._left:
                at += self._begin(data[at : at + _HEAD.size - len(self._head)])
                continue
            taken = min(self._left, len(data) - at)
            if self._is_method:
                self._method += data[at : at + min(taken, _METHOD.size - len(self._method))]
            at += taken
            self._left -= taken
            if not self._left and self._is_method:
                yield at, self._method

    def _begin(self, part: bytes) -> int:
        self._head += part
        if len(self._head) == _HEAD.size:
            kind, _, size = _HEAD.unpack(self._head)
            # And the byte behind the payload.
            self._left = size + 1
            self._head = self._method = b""
            self._is_method = kind == _IS_METHOD
        return len(part)
