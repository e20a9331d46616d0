"""Puts the frames of one message together: the method that announces it, its header, its body in pieces."""

from collections.abc import Callable
from typing import Final

from messaging.transports.amqp.wire import BODY, HEADER, BrokenFrameError, read_body_size

__all__ = ["BODY_KEPT_BYTES", "Assembly"]

BODY_KEPT_BYTES: Final = 5 * 1024 * 1024
"""How much of a body is kept: more than the largest message there is (docs/spec.md), so what is cut is refused anyway.

A stranger may publish bodies of 128 MiB, and a whole prefetch of them would be in memory at once.
"""

Finished = Callable[[bytes, bytes], None]
"""Takes the content header's payload and the body."""


class Assembly:
    """The message that is on its way on one channel. There is at most one: AMQP never interleaves them."""

    def __init__(self) -> None:
        self._finished: Finished | None = None
        self._header: bytes | None = None
        self._missing = 0
        self._kept = 0
        self._pieces: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self._finished is not None

    def expect(self, finished: Finished) -> None:
        """Begin a message; `finished` is called once it is whole.

        Raises:
            BrokenFrameError: The one before is not whole.
        """
        if self._finished is not None:
            raise BrokenFrameError("a message begins within another one")
        self._finished = finished

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Take a frame of content; False when no message of ours is expected.

        Raises:
            BrokenFrameError: It does not fit what came before.
        """
        if self._finished is None:
            return False
        if kind == HEADER:
            self._begin(data, start, end)
        elif kind == BODY and self._header is not None and end - start <= self._missing:
            self._missing -= end - start
            self._keep(data[start:end])
        else:
            raise BrokenFrameError(f"a frame of kind {kind} and {end - start} bytes within a message")
        if not self._missing:
            self._finish()
        return True

    def _begin(self, data: bytes, start: int, end: int) -> None:
        if self._header is not None:
            raise BrokenFrameError("a message with two headers")
        self._missing = read_body_size(data, start, end)
        self._header = data[start:end]

    def _keep(self, piece: bytes) -> None:
        piece = piece[: BODY_KEPT_BYTES - self._kept]
        # A frame may be empty, and a broker that lies may send them for ever.
        if piece:
            self._kept += len(piece)
            self._pieces.append(piece)

    def _finish(self) -> None:
        finished, header = self._finished, self._header or b""
        pieces, self._pieces = self._pieces, []
        self._finished = self._header = None
        self._kept = 0
        if finished is not None:
            finished(header, pieces[0] if len(pieces) == 1 else b"".join(pieces))
