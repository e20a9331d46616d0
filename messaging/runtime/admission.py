"""`Intake`: one queue of a service. How much is let in at once, and what is done about messages that kill workers.

A worker that dies raises the broker's count of everything it held, guilty or not. So an intake starts with one delivery
at a time and takes four times as many once as many as it takes have ended well: whoever dies held at most four times
what it had done, so what stands in the queue goes on faster than it is blamed. A delivery that came back three times
sends it back to one at a time on a fresh channel, after what runs has ended. Then only the message that kills keeps
gaining, and at ten it is buried before it runs (docs/failure.md, "Crash fuse").
"""

import asyncio
from typing import Final, Protocol

import structlog

from messaging.core.retry import Verdict
from messaging.errors import TransportError
from messaging.runtime.breaker import Breaker
from messaging.runtime.consumer import GivenBack
from messaging.runtime.handling import Handling, Part
from messaging.runtime.runs import Runs
from messaging.runtime.settle import Settler
from messaging.runtime.tasks import Tasks
from messaging.transports.base import Delivery, Subscription, Transport

__all__ = ["Intake"]

SUSPECT_DELIVERIES: Final = 3
# By how much an intake widens at a time.
_WIDENING: Final = 4

log = structlog.get_logger()


class Decides(Protocol):
    """What turns deliveries into verdicts: a `Consumer`, or what stands before it."""

    @property
    def stopping(self) -> asyncio.Event:
        """Set once the service stops."""

    async def process(self, handling: Handling) -> Verdict:
        """Return what to do with a delivery; see `Consumer.process`."""


class Intake:
    """Takes deliveries of one queue in and sees each to its verdict."""

    def __init__(
        self,
        part: Part,
        queue: str,
        *,
        transport: Transport,
        consumer: Decides,
        settler: Settler,
        prefetch: int,
        breaker: Breaker | None = None,
    ) -> None:
        self.part = part
        self.queue = queue
        self._transport = transport
        self._consumer = consumer
        self._settler = settler
        self._prefetch = prefetch
        self._breaker = breaker
        self._width = 1
        # How many deliveries must still end well, one after the other, before the next widening.
        self._alone = 1
        self._is_resizing = False
        self._is_narrowing = False
        # It is to be narrowed once the widening that is under way has ended.
        self._is_suspecting = False
        self._is_replacing = False
        self._is_stopping = False
        self._put_off: list[Delivery] = []
        self._running = Runs(self._handle, name=queue, leave=_return)
        self._chores = Tasks()
        self._subscription: Subscription | None = None
        self._subscribed = asyncio.Event()

    @property
    def is_live(self) -> bool:
        """Whether the broker is known to feed it."""
        return self._subscription is not None and self._subscription.is_live

    @property
    def running(self) -> int:
        """How many deliveries are being handled."""
        return len(self._running)

    async def start(self) -> None:
        """Begin with one delivery at a time."""
        self._subscription = await self._transport.consume(self.queue, self._arrived, prefetch=self._width)
        self._subscribed.set()

    async def stop(self, *, timeout_s: float) -> bool:
        """Stop deliveries and drain what runs; returns whether all of it ended in time. The rest is given back."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        # A broker that does not answer may take seconds of the time that handlers have.
        deadline_s = loop.time() + timeout_s
        await self._chores.cancel()
        if self._subscription is not None:
            await self._subscription.cancel()
        drained = await self._running.drain(timeout_s=max(0.0, deadline_s - loop.time()))
        await self._running.cancel()
        return drained

    def _arrived(self, delivery: Delivery) -> None:
        """Start a task; called by the transport, so it neither blocks nor raises."""
        if self._is_stopping:
            delivery.give_back()
            return
        if delivery.delivery_count >= SUSPECT_DELIVERIES and self._width > 1:
            self._resize(1)
        if self._is_suspecting:
            # Not started and not settled, as below: over AMQP a wider consumer brings much before it is told so.
            return
        if self._is_narrowing:
            # Not started and not settled: the fresh channel brings it back, alone. The fresh channel itself may deliver
            # before `resize` returns, and would wait for ever for what is neither.
            if self._is_replacing:
                self._put_off.append(delivery)
            return
        handling = Handling(delivery, self.part)
        self._running.put(handling)

    async def _handle(self, handling: Handling) -> None:
        try:
            process = self._consumer.process
            verdict = await (process(handling) if self._breaker is None else self._passed(self._breaker, handling))
            await self._settler.settle(handling, verdict, stopping=self._consumer.stopping)
        except GivenBack:
            await self._settler.give_back(handling)
            return
        except asyncio.CancelledError:
            await self._settler.give_back(handling)
            raise
        except BaseException:
            await self._settler.abandon(handling)
            raise
        self._ended_well(handling.delivery)

    async def _passed(self, breaker: Breaker, handling: Handling) -> Verdict:
        async with breaker.passage(handling, stopping=self._consumer.stopping):
            return await self._consumer.process(handling)

    def _ended_well(self, delivery: Delivery) -> None:
        if self._is_narrowing:
            # What ran beside others tells nothing about those that come back.
            return
        if delivery.delivery_count >= SUSPECT_DELIVERIES:
            self._alone = self._prefetch
            return
        self._alone -= 1
        if self._alone <= 0 and self._width < self._prefetch:
            self._resize(min(self._prefetch, self._width * _WIDENING))

    def _resize(self, width: int) -> None:
        if self._is_stopping or width == self._width:
            return
        if self._is_resizing:
            self._is_suspecting = self._is_suspecting or width < self._width
            return
        self._is_resizing = True
        self._is_narrowing = width < self._width
        if self._is_narrowing:
            # Each narrowing raises the counts of the neighbours; opening up at once would meet the next suspect and
            # drive innocent messages, given back by a few restarts, to the fuse.
            self._alone = self._prefetch
        else:
            self._alone = width
        self._width = width
        self._chores.spawn(self._resized(width), name=f"{self.queue} prefetch {width}")

    async def _resized(self, width: int) -> None:
        try:
            if self._is_narrowing:
                log.warning("consumer.narrowed", queue=self.queue)
                await self._running.drain(timeout_s=_NARROW_WAIT_S)
            # The first deliveries may have ended before `consume` has returned.
            await self._subscribed.wait()
            if self._subscription is not None:
                self._is_replacing = True
                await self._subscription.resize(width)
        except TransportError as error:
            # The transport resumes the subscription with the prefetch it last knew; the next delivery decides anew.
            log.warning("consumer.unresized", queue=self.queue, reason=str(error))
        finally:
            self._is_resizing = self._is_narrowing = self._is_replacing = False
            put_off, self._put_off = self._put_off, []
            for delivery in put_off:
                delivery.give_back()
            if self._is_suspecting:
                self._is_suspecting = False
                self._resize(1)


def _return(handling: Handling) -> None:
    handling.delivery.give_back()


# How long a narrowing waits for handlers that run: longer than the default handler timeout.
_NARROW_WAIT_S: Final = 90.0
