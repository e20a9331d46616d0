"""Cuts the broker's bytes into frames: what a registered channel takes is handled at once, all else goes to aiormq.

    socket ──► Splitter ──► lane of the channel     deliveries, confirms, returns
                   │
                   └──► FrameReader ──► aiormq      handshake, heartbeats, answers, cancels, closes, blocking

It stands where `asyncio.StreamReaderProtocol` would. Rules:

- Nothing is skipped: what is no frame ends the connection.
- Nothing raises out of the socket's read: asyncio would end the connection without a reason.
- A lane ends in the same step in which a close is read from the broker or written by aiormq: a frame after that would
  end the whole connection.
- While the socket is full or the broker blocks the connection, no lane may write; all are told when they may again.
"""

import asyncio
from typing import Final, Protocol

import aiormq.connection
import pamqp.commands
import pamqp.frame

from messaging.transports.amqp.wire import (
    BLOCKED,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CONNECTION_CLOSE,
    END,
    FRAME,
    HEARTBEAT,
    METHOD,
    OVERHEAD_BYTES,
    UNBLOCKED,
    BrokenFrameError,
    read_method,
)

__all__ = ["Lane", "Splitter"]

_PAYLOAD_AT: Final = 7
_KINDS: Final = frozenset({1, 2, 3, 8})
# What RabbitMQ proposes and aiormq agrees to, until they have spoken.
_FRAME_MAX: Final = 128 * 1024
# Where they agree that there is no bound: what is longer ends the connection on the plain path too (`frames`).
_UNBOUNDED: Final = 16 * 1024 * 1024
# aiormq takes the link for stuck when it sees no frame for three heartbeats.
_SIGN_OF_LIFE_S: Final = 1.0


class Lane(Protocol):
    """What a registered channel does."""

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """Handle a frame whose payload lies between `start` and `end`, and those after it that belong to it.

        Returns:
            Where the last of them ends; 0 leaves the frame to aiormq.

        Raises:
            Exception: It cannot be understood.
        """

    def resume(self) -> None:
        """Write what was held back."""

    def sever(self, error: BaseException | None, reason: str) -> None:
        """Write nothing from now on, and fail what is open."""


class Splitter(asyncio.StreamReaderProtocol):
    """The protocol of one connection's socket.

    Args:
        reader: What aiormq reads from.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._frame_max = _FRAME_MAX
        self._clock = asyncio.get_running_loop()
        super().__init__(reader, loop=self._clock)
        self._rest_of = reader
        self._socket: asyncio.Transport | None = None
        self._lanes: dict[int, Lane] = {}
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = OVERHEAD_BYTES
        self._speaks_amqp: bool | None = None
        self._is_blocked = False
        self._is_full = False
        self._sign_of_life_s = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether a socket was ever opened through it."""
        return self._socket is not None

    @property
    def may_write(self) -> bool:
        """Whether a lane may write now."""
        return not self._is_blocked and not self._is_full and self._socket is not None and not self._socket.is_closing()

    def agree(self, frame_max: int) -> None:
        """Take the largest frame that was agreed with the broker, bytes; 0 means no bound."""
        self._frame_max = frame_max or _UNBOUNDED

    def register(self, channel: int, lane: Lane) -> None:
        """Give the frames of a channel to a lane."""
        self._lanes[channel] = lane

    def release(self, channel: int, lane: Lane) -> None:
        """Give them to aiormq again; the number may already belong to another lane."""
        if self._lanes.get(channel) is lane:
            del self._lanes[channel]

    def write(self, data: bytes) -> None:
        """Write whole frames; only while `may_write`."""
        if self._socket is not None:
            self._socket.write(data)

    def note_written(self, data: bytes) -> None:
        """Look at what aiormq is about to write: a close ends its lane first."""
        if len(data) < _PAYLOAD_AT + 4 or data[0] != METHOD:
            return
        method = read_method(data, _PAYLOAD_AT)
        if method in {CHANNEL_CLOSE, CHANNEL_CLOSE_OK}:
            lane = self._lanes.get(FRAME.unpack_from(data)[1])
            if lane is not None:
                lane.sever(None, "the channel was closed")
        elif method == CONNECTION_CLOSE:
            self._sever_all(None, "the connection was closed")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep hold of the socket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what TCP and TLS give
        self._socket = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._speaks_amqp is None:
            # A foreign server's greeting, or a version refused: aiormq knows what to say of it.
            self._speaks_amqp = data[0] in _KINDS
        if not self._speaks_amqp:
            super().data_received(data)
            return
        try:
            self._split(data)
        except Exception as error:  # noqa: BLE001 - bytes of a stranger: whatever they break, the connection ends with a reason
            self._abort(error)

    def pause_writing(self) -> None:
        """Hold everything back: the socket takes no more."""
        self._is_full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._is_full = False
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all lanes."""
        self._sever_all(exc or ConnectionResetError("the connection was lost"), "the connection was lost")
        self._lanes.clear()
        super().connection_lost(exc)

    def _split(self, data: bytes) -> None:
        whole = self._joined(data)
        at, available, took = 0, len(whole), False
        while available - at >= OVERHEAD_BYTES:
            kind, channel, size = FRAME.unpack_from(whole, at)
            end = at + OVERHEAD_BYTES + size
            if kind not in _KINDS or end - at > self._frame_max:
                raise BrokenFrameError(f"a frame of kind {kind} and {size} bytes; {self._frame_max} were agreed")
            if end > available:
                self._need = end - at
                break
            if whole[end - 1] != END:
                raise BrokenFrameError("a frame without its end")
            lane = self._lanes.get(channel)
            after = 0 if lane is None else lane.take(kind, whole, at + _PAYLOAD_AT, end - 1)
            if after:
                took, at = True, after
            else:
                self._pass_on(kind, channel, whole[at:end])
                at = end
        if at < available:
            self._pieces.append(whole[at:])
            self._have = available - at
        if took:
            self._show_life()

    def _joined(self, data: bytes) -> bytes:
        """Return what can be cut now: nothing while the frame that began is not whole. Each byte is joined once."""
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return b""
            data = b"".join(self._pieces)
            self._pieces.clear()
        self._need = OVERHEAD_BYTES
        return data

    def _pass_on(self, kind: int, channel: int, frame: bytes) -> None:
        if channel == 0 and kind == METHOD:
            self._note(frame)
        self._rest_of.feed_data(frame)

    def _show_life(self) -> None:
        now_s = self._clock.time()
        if now_s - self._sign_of_life_s > _SIGN_OF_LIFE_S:
            self._sign_of_life_s = now_s
            self._rest_of.feed_data(HEARTBEAT)

    def _note(self, frame: bytes) -> None:
        method = read_method(frame, _PAYLOAD_AT)
        if method == BLOCKED:
            self._is_blocked = True
        elif method == UNBLOCKED:
            self._is_blocked = False
            self._resume()
        elif method == CONNECTION_CLOSE:
            close = pamqp.frame.unmarshal(frame)[2]
            assert isinstance(close, pamqp.commands.Connection.Close)  # noqa: S101 - its number says so
            error = aiormq.connection.exception_by_code(close)
            self._sever_all(error, str(error))

    def _resume(self) -> None:
        for lane in tuple(self._lanes.values()):
            lane.resume()

    def _sever_all(self, error: BaseException | None, reason: str) -> None:
        for lane in tuple(self._lanes.values()):
            lane.sever(error, reason)

    def _abort(self, cause: Exception) -> None:
        error = (
            cause if isinstance(cause, BrokenFrameError) else BrokenFrameError(f"a frame that cannot be read: {cause}")
        )
        self._pieces.clear()
        self._speaks_amqp = False
        self._sever_all(error, str(error))
        self._rest_of.set_exception(error)
        if self._socket is not None:
            self._socket.abort()
