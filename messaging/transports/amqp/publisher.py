"""Publishes over channels that come and go, and keeps every message until its outcome is known or its deadline passes.

    publish ──► queue ──► channel ──► confirmed
                  ▲          │
                  └── lost ──┘  the same bytes again, on another channel, until the deadline

Rules: confirms are pipelined, no publish waits for another's; a channel holds a bounded number of messages and bytes;
two messages with one id are never open on one channel, because returned messages are matched by it.
"""

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.errors import ConnectionLostError, PublishNotConfirmedError
from messaging.transports.amqp.channel import Channel, open_channel
from messaging.transports.amqp.confirms import WINDOW, WINDOW_BYTES
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import OutcomeUnknownError, blamed
from messaging.transports.amqp.link import Link
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.tasks import end

__all__ = ["Publisher"]

_CHANNELS: Final = 2
# A channel that confirmed nothing for this long while a deadline passed is taken for dead; a slow queue is not.
_STALLED_S: Final = 1.0
_REOPEN_MIN_S: Final = 0.05
_REOPEN_MAX_S: Final = 1.0

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Pending:
    parcel: Parcel
    number: int
    done: asyncio.Future[None]
    sent_s: float | None = None
    lane: "_Lane | None" = None

    def __lt__(self, other: "_Pending") -> bool:
        return self.number < other.number


@dataclass(slots=True, eq=False)
class _Lane:
    channel: Channel
    confirmed_s: float
    size_bytes: int = 0
    ids: set[str] = field(default_factory=set)
    is_retired: bool = False

    def takes(self, parcel: Parcel) -> bool:
        """Whether there is room for it now."""
        return (
            not self.is_retired
            and not self.channel.is_closed
            and len(self.ids) < WINDOW
            and parcel.message_id not in self.ids
            and (not self.ids or self.size_bytes + len(parcel.body) <= WINDOW_BYTES)
        )


class Publisher:
    """Publishes through one link.

    Args:
        link: The connection for publishing.
        ambient: Clock.
    """

    def __init__(self, link: Link, *, ambient: Ambient) -> None:
        self._link = link
        self._monotonic_s = ambient.monotonic_s
        self._numbers = itertools.count()
        self._queue: list[_Pending] = []
        self._open: set[_Pending] = set()
        self._lanes: list[_Lane] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = True

    def start(self) -> None:
        """Begin to keep channels open."""
        self._is_closed = False
        self._tasks = [asyncio.create_task(self._keep_lane(), name="publisher channel") for _ in range(_CHANNELS)]

    async def publish(self, parcel: Parcel, *, timeout_s: float) -> None:
        """Publish and return once the broker has confirmed.

        Raises:
            UnroutableError: It reached no queue.
            PublishNotConfirmedError: Refused, or not confirmed within `timeout_s` seconds.
            MessageTooLargeError: The broker refuses messages of this size.
            ConnectionLostError: The transport is closed.
        """
        pending = self._enter(parcel)
        expiry = asyncio.get_running_loop().call_later(max(0.0, timeout_s), self._expire, pending, timeout_s)
        try:
            await pending.done
        finally:
            expiry.cancel()
            self._open.discard(pending)

    def post(self, parcel: Parcel) -> None:
        """Publish without waiting and without any promise; dropped when too much waits already."""
        if self._is_closed or len(self._open) >= _CHANNELS * WINDOW:
            return
        pending = self._enter(parcel)
        expiry = asyncio.get_running_loop().call_later(_REOPEN_MAX_S, self._expire, pending, _REOPEN_MAX_S)

        def forget(done: asyncio.Future[None]) -> None:
            expiry.cancel()
            self._open.discard(pending)
            # Retrieved: nobody waits for it.
            done.cancelled() or done.exception()

        pending.done.add_done_callback(forget)

    def pump(self) -> None:
        """Send what waits and fits. Called whenever that may have changed."""
        if not self._queue or not self._may_send:
            return
        held: list[_Pending] = []
        while self._queue:
            pending = heapq.heappop(self._queue)
            if pending.done.done():
                continue
            lane = self._choose(pending.parcel)
            if lane is not None:
                self._send(pending, lane)
                continue
            held.append(pending)
            if not any(pending.parcel.message_id in lane.ids for lane in self._lanes):
                # No room: what comes later waits too. A repeated id alone holds up nobody else.
                break
        for pending in held:
            heapq.heappush(self._queue, pending)

    async def aclose(self, grace_s: float) -> None:
        """Take no more, wait for confirms up to `grace_s` seconds, then fail what is open and close the channels."""
        self._is_closed = True
        if self._open:
            await asyncio.wait([pending.done for pending in self._open], timeout=grace_s)
        for pending in tuple(self._open):
            self._give_up(pending)
        for lane in self._lanes:
            # What is still open was waited for already.
            lane.channel.give_up("the transport was closed")
        tasks, self._tasks = self._tasks, []
        await end(tasks)
        self._queue.clear()

    def _enter(self, parcel: Parcel) -> _Pending:
        if self._is_closed:
            raise ConnectionLostError("the transport is closed; connect before publishing")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending = _Pending(parcel=parcel, number=next(self._numbers), done=done)
        self._open.add(pending)
        lane = None if self._queue or not self._may_send else self._choose(parcel)
        if lane is None:
            heapq.heappush(self._queue, pending)
            self.pump()
        else:
            # Nobody waits before it and there is room: the usual case.
            self._send(pending, lane)
        return pending

    @property
    def _may_send(self) -> bool:
        connection = self._link.current
        return connection is not None and connection.blocked_by is None

    def _choose(self, parcel: Parcel) -> _Lane | None:
        found: _Lane | None = None
        for lane in self._lanes:
            if (found is None or len(lane.ids) < len(found.ids)) and lane.takes(parcel):
                found = lane
        return found

    def _send(self, pending: _Pending, lane: _Lane) -> None:
        lane.ids.add(pending.parcel.message_id)
        lane.size_bytes += len(pending.parcel.body)
        pending.sent_s = self._monotonic_s()
        pending.lane = lane
        confirm = lane.channel.publish(pending.parcel)
        confirm.add_done_callback(partial(self._on_outcome, pending, lane))

    def _on_outcome(self, pending: _Pending, lane: _Lane, confirm: asyncio.Future[None]) -> None:
        lane.ids.discard(pending.parcel.message_id)
        lane.size_bytes -= len(pending.parcel.body)
        pending.lane = None
        error = ConnectionLostError("cancelled") if confirm.cancelled() else confirm.exception()
        if not isinstance(error, OutcomeUnknownError):
            lane.confirmed_s = self._monotonic_s()
        if not pending.done.done():
            self._conclude(pending, error)
        self.pump()

    def _conclude(self, pending: _Pending, error: BaseException | None) -> None:
        if error is None:
            pending.done.set_result(None)
            return
        if isinstance(error, OutcomeUnknownError):
            parcel = pending.parcel
            route = parcel.route
            blame = blamed(
                error.reason, exchange=route.exchange, routing_key=route.routing_key, size_bytes=len(parcel.body)
            )
            if blame is None:
                heapq.heappush(self._queue, pending)
                return
            error = blame
        if isinstance(error, PublishNotConfirmedError):
            error.message_id = pending.parcel.id
        pending.done.set_exception(error)

    def _expire(self, pending: _Pending, timeout_s: float) -> None:
        if pending.done.done():
            return
        said = f"routing key {pending.parcel.route.routing_key!r} was not confirmed within {timeout_s:g} s"
        pending.done.set_exception(
            PublishNotConfirmedError(f"{said}: {self._why(pending)}", message_id=pending.parcel.id)
        )
        lane = pending.lane
        if lane is not None and self._is_stalled(lane, pending):
            lane.is_retired = True
            lane.channel.give_up("it confirmed nothing in time")

    def _is_stalled(self, lane: _Lane, pending: _Pending) -> bool:
        if pending.sent_s is None or self._link.current is None or self._link.current.blocked_by is not None:
            return False
        return lane.confirmed_s < pending.sent_s and self._monotonic_s() - pending.sent_s >= _STALLED_S

    def _why(self, pending: _Pending) -> str:
        repeat = "the outcome is unknown; repeat it under the same id"
        sent = f"it was sent, {repeat}" if pending.sent_s is not None else "it was never sent"
        if self._link.problem is not None:
            return f"{sent}; {self._link.problem}"
        if pending.sent_s is None:
            return f"{sent}; too many publishes wait for the broker's confirms"
        return sent

    def _give_up(self, pending: _Pending) -> None:
        if pending.done.done():
            return
        if pending.sent_s is None:
            pending.done.set_exception(ConnectionLostError("the transport was closed before the message was sent"))
            return
        pending.done.set_exception(
            PublishNotConfirmedError(
                "the transport was closed before the broker confirmed; the outcome is unknown, repeat it under the "
                "same id",
                message_id=pending.parcel.id,
            )
        )

    async def _keep_lane(self) -> None:
        delay_s = _REOPEN_MIN_S
        while True:
            connection = await self._link.connected()
            opened_s = self._monotonic_s()
            try:
                channel = await open_channel(connection, confirms=True)
            except ConnectionLostError as error:
                _log.debug("channel.lost", purpose="publish", reason=str(error))
            else:
                await self._use(_Lane(channel=channel, confirmed_s=opened_s), connection)
            # A message that kills its channel comes back on the next one: not in a tight loop.
            lived_s = self._monotonic_s() - opened_s
            delay_s = _REOPEN_MIN_S if lived_s > _REOPEN_MAX_S else min(delay_s * 2, _REOPEN_MAX_S)
            await asyncio.sleep(delay_s)

    async def _use(self, lane: _Lane, connection: Connection) -> None:
        self._lanes.append(lane)
        self.pump()
        try:
            await asyncio.wait({lane.channel.gone})
        finally:
            self._lanes.remove(lane)
            await lane.channel.aclose()
        if connection.is_open:
            # Without a connection the loss of its channels is no news.
            _log.warning("channel.lost", purpose="publish", reason=lane.channel.gone.result())
