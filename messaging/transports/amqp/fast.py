"""The fast channel: writes and reads the frames of messages itself, beside aiormq and on one of its channels.

Opening, consuming, cancelling and closing stay aiormq's business. What is published and settled in one tick of the
event loop is written with one call; confirms and deliveries are handled inside the socket's read. See
docs/performance.md for what that is worth, and `splitter` for the rules that keep both in step.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

import aiormq
import aiormq.channel
import pamqp.commands
import pamqp.frame

from messaging.transports.amqp.arrival import Arrival, Message, message_id_of
from messaging.transports.amqp.assembly import Assembly
from messaging.transports.amqp.confirms import Confirms
from messaging.transports.amqp.connection import ENDING_TIMEOUT_S, close_channel
from messaging.transports.amqp.errors import CLIENT_ERRORS, OutcomeUnknownError
from messaging.transports.amqp.intake import Intake
from messaging.transports.amqp.outcomes import fail, refused, unwritable
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How, Settlements
from messaging.transports.amqp.splitter import Splitter
from messaging.transports.amqp.wire import (
    ACK,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    DELIVER,
    METHOD,
    NACK,
    RETURN,
    Encoder,
    read_confirm,
    read_content,
    read_deliver,
    read_method,
    read_names,
    whole_frame,
)
from messaging.transports.base import Confirm

__all__ = ["FastChannel"]

_KNOWN_NAMES: Final = 1024
_CONFIRM: Final = frozenset({ACK, NACK})
_CLOSE: Final = frozenset({CHANNEL_CLOSE, CHANNEL_CLOSE_OK})


class FastChannel:
    """A channel beside aiormq.

    Args:
        channel: A fresh channel of aiormq's.
        splitter: The protocol of its connection's socket.

    Attributes:
        gone: Done with a one-line reason once the channel, or the consumer on it, is of no more use.
    """

    def __init__(self, channel: aiormq.Channel, splitter: Splitter) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self._channel = channel
        self._closing = channel.closing
        self._number = channel.number
        self._splitter = splitter
        self._frame_max = frame_max = int(channel.connection.connection_tune.frame_max)
        self._encoder = Encoder(self._number, frame_max=frame_max)
        self._confirms = Confirms()
        self._settlements = Settlements()
        self._assembly = Assembly()
        self._intake = Intake(channel, self.give_up)
        self._names: dict[bytes, tuple[str, str]] = {}
        self._on_message: Callable[[Message], None] | None = None
        self._out: list[bytes] = []
        self._is_scheduled = False
        self._is_refusing = False
        self._is_closed = False
        self._is_closed_there = False
        self._closed_by: BaseException | None = None
        self._said: list[asyncio.Future[None]] = []
        splitter.register(self._number, self)
        # Its confirm would come to us, and whoever waits for it in aiormq would wait for ever.
        channel.basic_publish = _refuse  # type: ignore[method-assign]
        self._closing.add_done_callback(self._on_closing)

    @property
    def is_closed(self) -> bool:
        """Whether the channel is gone."""
        # As aiormq's `is_closed`, less the detour: it is asked before each message.
        return self._is_closed or self._is_refusing or self._closing.done()

    @property
    def is_consuming(self) -> bool:
        """Whether aiormq still knows our consumer."""
        return not self.is_closed and self._intake.is_known

    @property
    def unsaid_settlements(self) -> int:
        """How many deliveries were settled without the broker being told; once the channel is gone, for good."""
        return len(self._settlements)

    # Publishing.

    def publish(self, parcel: Parcel) -> asyncio.Future[None]:
        """Send a message and return the future of its confirm; see `send`."""
        confirm: asyncio.Future[None] = self._loop.create_future()
        self.send(parcel, confirm)
        return confirm

    def send(self, parcel: Parcel, confirm: Confirm) -> None:
        """Send a message.

        Its confirm fails with `UnroutableError`, with `PublishNotConfirmedError` when the broker refused it, or with
        `OutcomeUnknownError` when the channel went first; later than this call in any case.

        Raises:
            BufferError: Too much is unconfirmed already; wait for `room` first.
        """
        if self._is_closed or self._is_refusing:
            self._loop.call_soon(fail, confirm, OutcomeUnknownError(self._closed_by))
            return
        # The tag and the place among the frames are taken together: nothing may come between them.
        self._confirms.add(parcel, confirm)
        try:
            self._encoder.publish(parcel, self._out)
        except (ValueError, TypeError) as error:
            self._confirms.take_back(parcel)
            self._loop.call_soon(fail, confirm, unwritable(parcel, error))
            return
        if not self._is_scheduled:
            self._schedule()

    async def room(self, size_bytes: int) -> None:
        """Return once a message of that size may be published, or the channel is gone."""
        await self._confirms.room(size_bytes)

    # Consuming.

    async def consume(self, queue: str, on_message: Callable[[Message], None], *, prefetch: int, tag: str) -> None:
        """Start a consumer; `on_message` is called with each message, in order. It hands over and never raises.

        Raises:
            Exception: What the client raises; the broker has closed the channel then.
        """
        # The first message may come before the broker's answer is read.
        self._on_message = on_message
        await self._intake.start(queue, on_message, prefetch=prefetch, tag=tag)

    async def cancel(self) -> None:
        """Stop deliveries; what arrived can still be settled."""
        if not self.is_closed:
            await self._intake.stop()

    def settle(self, tag: int, how: How) -> bool:
        """Tell the broker what happened to a delivery; False when the channel is gone and it cannot be told."""
        if self._is_closed:
            return False
        self._settlements.add(tag, how)
        self._schedule()
        return True

    async def settled(self) -> None:
        """Return once the broker has read every settlement: it answers a question that was asked after them."""
        while len(self._settlements) and not self._is_closed:
            said: asyncio.Future[None] = self._loop.create_future()
            self._said.append(said)
            await said
        if not self.is_closed:
            await self._intake.round_trip()

    # Writing.

    def flush(self) -> None:
        """Write now what was sent and settled, instead of at the end of this turn."""
        if self._is_scheduled:
            self._flush()

    def resume(self) -> None:
        """Write what was held back."""
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._is_closed or not self._splitter.may_write:
            return
        if len(self._settlements):
            self._out += [self._encoder.settlement(settlement) for settlement in self._settlements.take()]
            self._tell_said()
        if self._out:
            out, self._out = self._out, []
            self._splitter.write(b"".join(out))

    def _tell_said(self) -> None:
        said, self._said = self._said, []
        for one in said:
            if not one.done():
                one.set_result(None)

    # What the splitter calls.

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """Handle a frame whose payload lies between `start` and `end`; 0 leaves it to aiormq."""
        if kind != METHOD:
            return end + 1 if self._assembly.take(kind, data, start, end) else 0
        method = read_method(data, start)
        if method == DELIVER:
            return self._take_delivery(data, start, end)
        if method in _CONFIRM:
            tag, multiple = read_confirm(data, start)
            self._confirms.settle(tag, multiple=multiple, error_of=None if method == ACK else refused)
        elif method == RETURN:
            self._assembly.expect(self._bounce)
        else:
            if method in _CLOSE:
                self._on_close(data, start, end)
            return 0
        return end + 1

    def _take_delivery(self, data: bytes, start: int, end: int) -> int:
        tag, redelivered, names = read_deliver(data, start, end)
        content = None if self._assembly.is_open else read_content(data, end + 1, self._number, self._frame_max)
        if content is None:
            self._assembly.expect(partial(self._hand_over, tag, redelivered, self._known(names)))
            return end + 1
        header, body, after = content
        self._hand_over(tag, redelivered, self._known(names), header, body)
        return after

    def _known(self, raw: bytes) -> tuple[str, str]:
        names = self._names.get(raw)
        if names is None:
            if len(self._names) >= _KNOWN_NAMES:
                self._names.clear()
            names = self._names[raw] = read_names(raw)
        return names

    def _hand_over(self, tag: int, redelivered: bool, names: tuple[str, str], header: bytes, body: bytes) -> None:
        if self._on_message is None or self._is_closed:
            # The broker delivers it again once the channel has ended there too.
            return
        try:
            self._on_message(Arrival(tag, redelivered, names, header, body))
        except Exception as error:  # noqa: BLE001 - the message stays unsettled; the connection is not to blame
            self._loop.call_exception_handler({"message": "a message was not handed over", "exception": error})

    def _bounce(self, header: bytes, body: bytes) -> None:
        del body
        self._confirms.bounce(message_id_of(header))

    def _on_close(self, data: bytes, start: int, end: int) -> None:
        self._splitter.release(self._number, self)
        close = pamqp.frame.unmarshal(whole_frame(self._number, data[start:end]))[2]
        if isinstance(close, pamqp.commands.Channel.Close):
            error = aiormq.channel.exception_by_code(close)
            self._is_closed_there = True
            self.sever(error, str(error))
        else:
            self.sever(None, "the channel was closed")

    def sever(self, error: BaseException | None, reason: str) -> None:
        """Write nothing from now on, and fail what is open."""
        self._closed_by = self._closed_by or error
        if not self._is_closed:
            self._is_closed = True
            self._out.clear()
            self._confirms.fail(lambda: OutcomeUnknownError(self._closed_by))
            self._tell_said()
        self.give_up(reason)

    # Ending.

    def give_up(self, reason: str) -> None:
        """Declare the channel useless, so that its owner replaces it."""
        if not self.gone.done():
            self.gone.set_result(reason)

    async def aclose(self) -> None:
        """Close the channel within bounds. Futures that are still open then fail with an unknown outcome."""
        is_useful, self._is_refusing = not self.gone.done(), True
        try:
            self._flush()
            if is_useful and len(self._confirms) and not self._is_closed:
                # Frames of both directions would otherwise cross the close.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ENDING_TIMEOUT_S):
                        await self._confirms.emptied()
        finally:
            self.sever(None, "closed")
        if self._is_closed_there:
            # aiormq answers the broker's close; a close of our own would cross it.
            with contextlib.suppress(*CLIENT_ERRORS):
                async with asyncio.timeout(ENDING_TIMEOUT_S):
                    await self._ended()
        await close_channel(self._channel)

    async def _ended(self) -> None:
        await asyncio.wait({self._closing})

    def _on_closing(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self.sever(error, str(error) if isinstance(error, Exception) and str(error) else "the channel was closed")


async def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("this channel publishes through FastChannel")
