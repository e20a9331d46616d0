"""Consumes one queue for as long as it is wanted: on a channel of its own, replaced with a fresh tag whenever it fails.

Liveness is proven, not assumed: every 5 s the consumer looks at its tag, channel and connection; every 30 s it asks the
broker how many consumers the queue has. What does not add up is rebuilt.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import aiormq
import structlog

from messaging.errors import ConfigurationError, ConnectionLostError, MessagingError, TopologyConflictError
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.connection import ENDING_TIMEOUT_S, RPC_TIMEOUT_S, Connection
from messaging.transports.amqp.declare import look
from messaging.transports.amqp.errors import CLIENT_ERRORS, declare_error
from messaging.transports.amqp.feed import Feed, Surroundings
from messaging.transports.amqp.tasks import end
from messaging.transports.base import Delivery, QueueDepth

__all__ = ["AmqpSubscription"]

_REBUILD_MIN_S: Final = 0.1
_REBUILD_MAX_S: Final = 15.0
_RESIZED: Final = "resized"

_log = structlog.get_logger()


class AmqpSubscription:
    """A running consumer of one queue.

    Args:
        queue: The queue.
        on_delivery: Called with each delivery; hands over, never blocks or raises.
        prefetch: Bound on unsettled deliveries; 0 means unbounded.
        around: What it needs of its transport.
        on_lost: Told of each channel that was lost.
        may_stand_by: Whether the queue feeds one consumer at a time: to get nothing is then no sign of trouble, and the
            broker counts that one alone.
    """

    def __init__(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        around: Surroundings,
        on_lost: Callable[[], None] | None = None,
        may_stand_by: bool = False,
    ) -> None:
        self._on_lost = on_lost
        self._may_stand_by = may_stand_by
        self.on_delivery = on_delivery
        self.prefetch = prefetch
        self._queue = queue
        self._around = around
        self._feed: Feed | None = None
        self._is_live = False
        self._is_resizing = False
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fed = asyncio.Event()

    @property
    def queue(self) -> str:
        """The queue."""
        return self._queue

    @property
    def is_live(self) -> bool:
        """Whether the broker is known to feed it now; while its bound grows it is."""
        feed = self._feed
        return self._is_live and feed is not None and (self._is_resizing or feed.channel.is_consuming)

    @property
    def is_wanted(self) -> bool:
        """Whether it was not cancelled."""
        return self._task is not None

    @property
    def is_spent(self) -> bool:
        """Whether it was cancelled and nothing of it is unsettled any more."""
        return self._task is None and (self._feed is None or not self._feed.unsettled)

    async def start(self) -> None:
        """Begin to consume and return once the broker has agreed.

        Raises:
            TopologyConflictError: The queue does not exist.
            ConfigurationError: The broker forbids it to this user.
            ConnectionLostError: It did not agree in time.
        """
        self._task = asyncio.create_task(self._run(), name=f"consumer {self._queue}")
        try:
            async with asyncio.timeout(self._around.start_timeout_s):
                await asyncio.shield(self._started)
        except TimeoutError as error:
            await self.aclose()
            reason = self._problem or self._around.link.problem or "the broker did not answer in time"
            raise ConnectionLostError(f"no consumer of queue {self._queue!r}: {reason}") from error
        except BaseException:
            await self.aclose()
            raise

    async def resize(self, prefetch: int) -> None:
        """Change the bound. A larger one keeps the channel; a smaller one starts a fresh one."""
        before, self.prefetch = self.prefetch, prefetch
        feed = self._feed
        if before == prefetch or feed is None or self._task is None:
            return
        if prefetch == 0 or 0 < before < prefetch:
            await self._grow(feed)
            return
        self._fed.clear()
        feed.is_stopped = True
        feed.channel.give_up(_RESIZED)
        if self._around.link.current is not None:
            # Without a connection, or a broker that answers, the new bound holds from the next channel on.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RPC_TIMEOUT_S):
                    await self._fed.wait()

    async def cancel(self) -> None:
        """Stop deliveries; what is unsettled stays settleable until the transport closes. Twice is once."""
        await self._stop()
        if self._feed is not None:
            self._feed.stop()
            await self._is_answered(self._feed.channel.cancel())

    async def release(self) -> None:
        """End it in one step: what was settled is said, what is unsettled returns in its order with the channel."""
        await self._stop()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.release()
            await self._is_answered(feed.channel.settled())
            await feed.aclose()

    async def aclose(self) -> None:
        """Stop, let the broker read what was settled, and close the channel, within bounds."""
        await self._stop()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
            # A broker that does not answer the first question is not asked a second one.
            if await self._is_answered(feed.channel.cancel()):
                await self._is_answered(feed.channel.settled())
            await feed.aclose()

    async def _is_answered(self, asking: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(ENDING_TIMEOUT_S):
                await asking
        except CLIENT_ERRORS as error:
            _log.debug("consumer.lost", queue=self._queue, reason=str(error) or type(error).__name__)
            return False
        return True

    async def _stop(self) -> None:
        self._is_live = False
        task, self._task = self._task, None
        if task is not None:
            await end([task])
        if not self._started.done():
            self._started.cancel()

    async def _grow(self, feed: Feed) -> None:
        self._is_resizing = True
        try:
            # The broker applies a bound to consumers that start after it, not to those that run.
            await feed.channel.cancel()
            await self._consume(feed)
        except CLIENT_ERRORS as error:
            feed.channel.give_up(str(error) or type(error).__name__)
        finally:
            self._is_resizing = False
        feed.hand_over()

    async def _run(self) -> None:
        delay_s = _REBUILD_MIN_S
        while True:
            connection = await self._around.link.connected()
            try:
                reason = await self._consume_until_lost(connection)
                delay_s = _REBUILD_MIN_S
            except MessagingError as error:
                self._refuse(error)
                self._problem = reason = str(error)
                delay_s = min(delay_s * 2, _REBUILD_MAX_S)
            if reason == _RESIZED:
                continue
            if not connection.is_open:
                # What the transport says of its connection covers this.
                _log.debug("consumer.lost", queue=self._queue, reason=reason)
                continue
            _log.warning("consumer.lost", queue=self._queue, reason=reason)
            await asyncio.sleep(delay_s * self._around.ambient.jitter())
            await self._declare_again(connection)

    async def _declare_again(self, connection: Connection) -> None:
        try:
            await self._around.declare(connection)
        except MessagingError as error:
            _log.warning("consumer.lost", queue=self._queue, reason=str(error))

    async def _consume_until_lost(self, connection: Connection) -> str:
        feed = Feed(await open_channel(connection, confirms=False), self, self._around)
        bound = self.prefetch
        try:
            await self._consume(feed)
        except CLIENT_ERRORS as error:
            await feed.aclose()
            raise self._meaning(error) from error
        except BaseException:
            await feed.aclose()
            raise
        if self.prefetch and (self.prefetch < bound or not bound):
            # Made smaller while the broker agreed to the old one: what came meanwhile waits for a fresh channel.
            await feed.aclose()
            return _RESIZED
        self._feed = feed
        self._is_live = True
        self._fed.set()
        if self._started.done():
            _log.info("consumer.restored", queue=self._queue, prefetch=self.prefetch)
        else:
            _log.debug("consumer.started", queue=self._queue, prefetch=self.prefetch)
            self._started.set_result(None)
        reason = await self._watch(feed, connection)
        self._is_live = False
        self._feed = None
        await feed.aclose()
        if self._on_lost is not None:
            self._on_lost()
        return reason

    async def _consume(self, feed: Feed) -> None:
        tag = self._around.ambient.new_id().hex
        await feed.channel.consume(self._queue, feed.take, prefetch=self.prefetch, tag=tag)

    def _meaning(self, error: Exception) -> MessagingError:
        if isinstance(error, aiormq.ChannelNotFoundEntity):
            return TopologyConflictError(
                f"there is no queue {self._queue!r} to consume from; run `messaging topology apply`"
            )
        return declare_error(error, f"queue {self._queue!r}", "to consume from it")

    def _refuse(self, error: MessagingError) -> None:
        if isinstance(error, TopologyConflictError | ConfigurationError) and not self._started.done():
            self._started.set_exception(error)

    async def _watch(self, feed: Feed, connection: Connection) -> str:
        counted_s = self._around.ambient.monotonic_s()
        doubted = False
        while True:
            await asyncio.wait({feed.channel.gone}, timeout=self._around.check_s)
            if feed.channel.gone.done():
                return feed.channel.gone.result()
            if not connection.is_open:
                return "the connection is gone"
            if not self._is_resizing and not feed.channel.is_consuming:
                return "the consumer is gone from its channel"
            now_s = self._around.ambient.monotonic_s()
            if doubted or now_s - counted_s >= self._around.count_s:
                counted_s = now_s
                reason = await self._disagreement(feed, connection)
                # Once may be a moment's difference, such as a consumer that has just come or gone.
                if reason is not None and doubted:
                    return reason
                doubted = reason is not None

    async def _disagreement(self, feed: Feed, connection: Connection) -> str | None:
        try:
            depth = await look(connection, self._queue)
        except MessagingError as error:
            return str(error)
        if self._is_resizing:
            return None
        if depth is None:
            return "the queue is gone"
        return self._doubt(feed, depth)

    def _doubt(self, feed: Feed, depth: QueueDepth) -> str | None:
        ours = self._around.consumers_of(self._queue)
        if self._may_stand_by:
            ours = min(ours, 1)
        if depth.consumers < ours:
            return f"the broker counts {depth.consumers} consumers, we count {ours}"
        idle_s = self._around.ambient.monotonic_s() - feed.delivered_s
        is_starving = (
            depth.messages and depth.consumers == ours and not feed.unsettled and idle_s >= self._around.count_s
        )
        if is_starving and not self._may_stand_by:
            return f"{depth.messages} messages wait and none is delivered"
        return None
