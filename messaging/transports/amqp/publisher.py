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
from messaging.transports.base import Confirm
from messaging.transports.deadlines import Deadline, Deadlines

__all__ = ["Publisher"]

_CHANNELS: Final = 2
# A channel that confirmed nothing for this long while a deadline passed is taken for dead; a slow queue is not.
_STALLED_S: Final = 1.0
# So many messages in a row go to one channel before the emptiest is looked for.
_RUN: Final = 16
_REOPEN_MIN_S: Final = 0.05
_REOPEN_MAX_S: Final = 1.0
# What waits may be so many more than what is still wanted, besides as many again, before the rest is forgotten.
_ENDED_MAX: Final = 1_024

_log = structlog.get_logger()


class _Pending(Deadline):
    """A message until its outcome is known: its own deadline, and to the channel that carries it the `Confirm`."""

    __slots__ = ("_owner", "lane", "number", "outcome", "parcel", "sent_s", "timeout_s")

    def __init__(self, parcel: Parcel, number: int, outcome: Confirm, timeout_s: float, owner: "Publisher") -> None:
        self.parcel = parcel
        self.number = number
        self.outcome = outcome
        self.timeout_s = timeout_s
        self.sent_s: float | None = None
        self.lane: _Lane | None = None
        self._owner = owner
        # Where deadlines end that are near to this one; not by way of the base class, as one is made for each message.
        self._slot = slot = owner.deadlines.slot(timeout_s)
        slot[self] = None

    def __lt__(self, other: "_Pending") -> bool:
        return self.number < other.number

    def done(self) -> bool:
        """Whether the channel has told already. It must, also when the caller waits no longer."""
        return self.lane is None

    def set_result(self, _result: None, /) -> None:
        self._owner.take_confirm(self)

    def set_exception(self, exception: Exception, /) -> None:
        self._owner.take_failure(self, exception)

    def expire(self) -> None:
        self._owner.take_expiry(self)


class _Nobody:
    """Waits for nothing."""

    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None:
        pass

    def set_exception(self, _exception: Exception, /) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Lane:
    channel: Channel
    confirmed_s: float
    size_bytes: int = 0
    ids: set[str] = field(default_factory=set)
    is_retired: bool = False

    def drop(self, parcel: Parcel) -> None:
        """Make room: the channel has told of it."""
        self.ids.discard(parcel.message_id)
        self.size_bytes -= len(parcel.body)

    def takes(self, parcel: Parcel) -> bool:
        """Whether there is room for it now."""
        ids = self.ids
        return (
            len(ids) < WINDOW
            and parcel.message_id not in ids
            and (not ids or self.size_bytes + len(parcel.body) <= WINDOW_BYTES)
            and not self.is_retired
            and not self.channel.is_closed
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
        self.deadlines = Deadlines()
        self._emptied: asyncio.Future[None] | None = None
        self._is_closed = True

    def start(self) -> None:
        """Begin to keep channels open."""
        self._emptied = None
        self.deadlines = Deadlines()
        self._is_closed = False
        self._tasks = [asyncio.create_task(self._keep_lane(), name="publisher channel") for _ in range(_CHANNELS)]

    def submit(self, parcel: Parcel, timeout_s: float, outcome: Confirm) -> None:
        """Publish, and tell `outcome` of the broker's confirm or of why there is none.

        It fails with `UnroutableError` when it reached no queue, `PublishNotConfirmedError` when it was refused or not
        confirmed within `timeout_s` seconds, `MessageTooLargeError` when the broker refuses such sizes, and
        `ConnectionLostError` when the transport is closed before it was sent.
        """
        if self._is_closed:
            outcome.set_exception(ConnectionLostError("the transport is closed; connect before publishing"))
            return
        pending = _Pending(parcel, next(self._numbers), outcome, timeout_s, self)
        self._open.add(pending)
        lane = None if self._queue else self._choose(parcel)
        if lane is None:
            if len(self._queue) > 2 * len(self._open) + _ENDED_MAX:
                self._sweep()
            heapq.heappush(self._queue, pending)
            self.pump()
        else:
            # Nobody waits before it and there is room: the usual case.
            self._send(pending, lane)

    async def publish(self, parcel: Parcel, *, timeout_s: float) -> None:
        """Publish and return once the broker has confirmed; raises what `submit` tells."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(parcel, timeout_s=timeout_s, outcome=outcome)
        await outcome

    def flush(self) -> None:
        """Write now what was sent, instead of at the end of this turn."""
        for lane in self._lanes:
            lane.channel.flush()

    def post(self, parcel: Parcel) -> None:
        """Publish without waiting and without any promise; dropped when too much waits already."""
        if not self._is_closed and len(self._open) < _CHANNELS * WINDOW:
            self.submit(parcel, timeout_s=_REOPEN_MAX_S, outcome=_Nobody())

    def pump(self) -> None:
        """Send what waits and fits. Called whenever that may have changed."""
        connection = self._link.current
        if not self._queue or connection is None or connection.blocked_by is not None:
            return
        held: list[_Pending] = []
        while self._queue:
            pending = heapq.heappop(self._queue)
            if pending.outcome.done():
                self._forget(pending)
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

    def _sweep(self) -> None:
        """Forget what has ended while it waited: during an outage nothing else takes it out of the queue."""
        self._queue = [pending for pending in self._queue if pending in self._open]
        heapq.heapify(self._queue)

    async def aclose(self, grace_s: float) -> None:
        """Take no more, wait for confirms up to `grace_s` seconds, then fail what is open and close the channels."""
        self._is_closed = True
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._emptied}, timeout=grace_s)
        for pending in tuple(self._open):
            self._give_up(pending)
        for lane in self._lanes:
            # What is still open was waited for already.
            lane.channel.give_up("the transport was closed")
        tasks, self._tasks = self._tasks, []
        await end(tasks)
        self._queue.clear()
        self._open.clear()
        self.deadlines.clear()

    def _choose(self, parcel: Parcel) -> _Lane | None:
        connection = self._link.current
        if connection is None or connection.blocked_by is not None:
            return None
        lanes = self._lanes
        if lanes and len(lanes[0].ids) % _RUN and lanes[0].takes(parcel):
            # Some in a row on one channel: they share its write.
            return lanes[0]
        lanes.sort(key=_fullness)
        return next((lane for lane in lanes if lane.takes(parcel)), None)

    def _send(self, pending: _Pending, lane: _Lane) -> None:
        parcel = pending.parcel
        lane.ids.add(parcel.message_id)
        lane.size_bytes += len(parcel.body)
        pending.sent_s = self._monotonic_s()
        pending.lane = lane
        lane.channel.send(parcel, pending)

    # What a channel says of a message. It may say so inside the socket's read, so nothing here raises.

    def take_confirm(self, pending: _Pending) -> None:
        """The broker has it."""
        lane, pending.lane = pending.lane, None
        if lane is not None:
            lane.drop(pending.parcel)
            lane.confirmed_s = self._monotonic_s()
        pending.lift()
        self._open.discard(pending)
        outcome = pending.outcome
        if not outcome.done():
            outcome.set_result(None)
        if self._queue:
            self.pump()
        if self._emptied is not None:
            self._tell_emptied(self._emptied)

    def take_failure(self, pending: _Pending, error: Exception) -> None:
        """It went wrong, or nobody knows."""
        lane, pending.lane = pending.lane, None
        if lane is not None:
            lane.drop(pending.parcel)
            if not isinstance(error, OutcomeUnknownError):
                lane.confirmed_s = self._monotonic_s()
        self._fail(pending, error)
        if self._queue:
            self.pump()

    def _fail(self, pending: _Pending, error: Exception) -> None:
        if isinstance(error, OutcomeUnknownError):
            parcel = pending.parcel
            route = parcel.route
            blame = blamed(
                error.reason, exchange=route.exchange, routing_key=route.routing_key, size_bytes=len(parcel.body)
            )
            if blame is None and not pending.outcome.done():
                heapq.heappush(self._queue, pending)
                return
            error = blame or error
        self._end(pending, error)

    def _end(self, pending: _Pending, error: Exception) -> None:
        self._forget(pending)
        if isinstance(error, PublishNotConfirmedError):
            error.message_id = pending.parcel.id
        if not pending.outcome.done():
            pending.outcome.set_exception(error)

    def _forget(self, pending: _Pending) -> None:
        pending.lift()
        self._open.discard(pending)
        if self._emptied is not None:
            self._tell_emptied(self._emptied)

    def _tell_emptied(self, emptied: asyncio.Future[None]) -> None:
        if not self._open and not emptied.done():
            emptied.set_result(None)

    def take_expiry(self, pending: _Pending) -> None:
        """Its deadline has passed."""
        key, timeout_s = pending.parcel.route.routing_key, pending.timeout_s
        lane = pending.lane
        is_wanted = not pending.outcome.done()
        self._end(
            pending,
            PublishNotConfirmedError(
                f"routing key {key!r} was not confirmed within {timeout_s:g} s: {self._why(pending)}"
            ),
        )
        if is_wanted and lane is not None and self._is_stalled(lane, pending):
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
        if pending.sent_s is None:
            self._end(pending, ConnectionLostError("the transport was closed before the message was sent"))
            return
        self._end(
            pending,
            PublishNotConfirmedError(
                "the transport was closed before the broker confirmed; the outcome is unknown, repeat it under the "
                "same id"
            ),
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


def _fullness(lane: _Lane) -> int:
    return len(lane.ids)
