"""`DeadQueue`: what one pass sees of a dead-letter queue, letter by letter, whatever its length.

Rules:
- A pass looks at what the queue held when it began and at no more: a queue that refills cannot make it endless.
- Nothing goes back before the pass is over, or it would be seen again; then all goes back in one go.
- What is not in hand costs no memory: the queue is read in slices, each through a consumer of its own, whose bound is
  the size of the slice. Of a letter that stays dead only the broker still knows anything.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from messaging.core.dead_letter import DeadLetter
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.transports.base import Delivery, Subscription, Transport

__all__ = ["DeadQueue", "Found"]

# The first slice is small because nothing is known of the letters' size; later ones hold about so many bytes.
_SLICE_FIRST: Final = 64
_SLICE_MAX: Final = 4_096
_SLICE_BYTES: Final = 16 * 1024 * 1024
# A queue that says it holds more than arrives within this time has perhaps been emptied by somebody else.
_QUIET_S: Final = 2.0
# A broker that is being mended may take that long until it delivers again.
_STALLED_S: Final = 30.0
# Opening a letter takes a fraction of a millisecond: heartbeats and Ctrl-C must get their turn in between.
_BREATH_EVERY: Final = 16
# The broker takes its time to bring thousands of letters back; whoever looks next must find them all. It may also stand
# still for a moment: only when it has told the same often, and for a while, no more come back.
_RETURN_POLL_S: Final = 0.02
_RETURN_STALLED_S: Final = 5.0
_RETURN_ASKED_AGAIN: Final = 50


class _Slice:
    """One consumer, and what it brought."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.arrived: deque[Delivery] = deque()
        self.kept = 0
        self.in_hand = 0
        self.stirred = asyncio.Event()
        self.subscription: Subscription | None = None

    @property
    def is_full(self) -> bool:
        """Whether the broker brings no more because of what stays unsettled."""
        return self.kept >= self.size

    def take(self, delivery: Delivery) -> None:
        self.arrived.append(delivery)
        self.stirred.set()

    async def aclose(self) -> None:
        self.arrived.clear()
        if self.subscription is not None:
            await self.subscription.release()


class Found:
    """A letter that a pass sees: kept unless it is taken; taken, it is settled or kept after all.

    Attributes:
        letter: What it says.
    """

    __slots__ = ("_delivery", "_slice", "letter")

    def __init__(self, letter: DeadLetter, delivery: Delivery, source: _Slice) -> None:
        self.letter = letter
        self._delivery = delivery
        self._slice = source
        source.kept += 1

    def take(self) -> None:
        """Announce that it will be settled soon: the broker brings another one for it then."""
        self._slice.kept -= 1
        self._slice.in_hand += 1

    def settle(self) -> None:
        """Take a letter that was announced away for good."""
        self._slice.in_hand -= 1
        self._delivery.ack()
        self._slice.stirred.set()

    def keep(self) -> None:
        """Leave a letter that was announced where it is."""
        self._slice.in_hand -= 1
        self._slice.kept += 1
        self._slice.stirred.set()


class DeadQueue:
    """One pass over a queue of dead letters.

    Args:
        transport: The way to the broker.
        queue: Its name.
        depth: How many letters to look at.
        read: Makes a letter of a delivery.
    """

    def __init__(self, transport: Transport, queue: str, *, depth: int, read: Callable[[Delivery], DeadLetter]) -> None:
        self.depth = depth
        self._transport = transport
        self._queue = queue
        self._read = read
        self._slices: list[_Slice] = []
        self._seen = 0
        self._seen_bytes = 0

    @classmethod
    @asynccontextmanager
    async def reading(
        cls, transport: Transport, queue: str, *, service: str, read: Callable[[Delivery], DeadLetter]
    ) -> "AsyncIterator[DeadQueue]":
        """Look at what the queue holds now; what is not settled inside goes back in one go.

        Raises:
            ConfigurationError: there is no such queue.
        """
        depth = await transport.depth(queue)
        if depth is None:
            raise ConfigurationError(
                f"no dead-letter queue of {service!r}: the service has not yet started here, or runs under another "
                "namespace than MESSAGING_NAMESPACE"
            )
        reading = cls(transport, queue, depth=depth.messages, read=read)
        try:
            yield reading
        finally:
            await reading.aclose()

    async def letters(self) -> AsyncGenerator[Found, None]:
        """Yield what the queue holds, in its order.

        Raises:
            ConnectionLostError: the broker says that more waits, but brings nothing.
        """
        source: _Slice | None = None
        while self._seen < self.depth:
            if source is None or source.is_full:
                await self._end(source)
                source = await self._begin()
            if not source.arrived and not await self._stirred(source):
                return
            if source.arrived and self._seen < self.depth:
                yield self._found(source)
                if self._seen % _BREATH_EVERY == 0:
                    await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Give back what was not settled, slice by slice, so that their order stays."""
        slices, self._slices = self._slices, []
        kept = sum(one.kept + one.in_hand for one in slices)
        for one in slices:
            await one.aclose()
        if kept:
            await self._returned(kept)

    async def _returned(self, count: int) -> None:
        """Wait until the queue holds at least so many again, or until no more come back."""
        loop = asyncio.get_running_loop()
        most, patience_s, asked = -1, 0.0, 0
        while True:
            depth = await self._transport.depth(self._queue)
            messages, asked = (0 if depth is None else depth.messages), asked + 1
            if messages > most:
                most, patience_s, asked = messages, loop.time() + _RETURN_STALLED_S, 0
            if messages >= count or (loop.time() >= patience_s and asked >= _RETURN_ASKED_AGAIN):
                return
            await asyncio.sleep(_RETURN_POLL_S)

    def _found(self, source: _Slice) -> Found:
        delivery = source.arrived.popleft()
        self._seen += 1
        self._seen_bytes += len(delivery.body)
        return Found(self._read(delivery), delivery, source)

    async def _begin(self) -> _Slice:
        source = _Slice(self._slice_size())
        self._slices.append(source)
        source.subscription = await self._transport.consume(self._queue, source.take, prefetch=source.size)
        return source

    async def _end(self, source: _Slice | None) -> None:
        if source is not None and source.subscription is not None:
            # It brings nothing any more; what it holds stays out of the queue until the pass is over.
            await source.subscription.cancel()

    def _slice_size(self) -> int:
        left = self.depth - self._seen
        if not self._seen:
            return min(left, _SLICE_FIRST)
        mean_bytes = max(1, self._seen_bytes // self._seen)
        return max(1, min(left, _SLICE_MAX, _SLICE_BYTES // mean_bytes))

    async def _stirred(self, source: _Slice) -> bool:
        """Wait until something arrives or is settled; False when there is nothing left to come."""
        loop = asyncio.get_running_loop()
        patience_s = loop.time() + _STALLED_S
        while not source.arrived and not source.is_full:
            source.stirred.clear()
            if await _set_within(source.stirred, _QUIET_S) or source.in_hand:
                continue
            depth = await self._transport.depth(self._queue)
            if depth is None or not depth.messages:
                # The answer may overtake letters that had left the queue before.
                await _set_within(source.stirred, _QUIET_S / 4)
                return bool(source.arrived)
            if loop.time() >= patience_s:
                raise ConnectionLostError(
                    f"queue {self._queue!r} holds {depth.messages} more letters, but the broker delivers none; "
                    "what was not replayed is still dead: look with `messaging doctor`, then begin again"
                )
        return True


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
