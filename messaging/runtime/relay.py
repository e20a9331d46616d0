"""`Relay`: publishes what handlers committed to the outbox. Confirmed first, deleted after: never lost, at worst twice.

What this process commits is handed to it, leased already, where the store can do that; else a commit wakes it. A slow
poll finds what a killed process left behind. Rows are claimed with a lease, published side by side, and deleted many at
a time: a crash before that publishes them again. A row that cannot leave now comes back later; one that never can is
parked: visible, and in nobody's way. Rows with a partition key leave one after the other, each once the one before it
is confirmed; behind one that comes back later they wait, behind one that is parked they do not.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

import structlog

from messaging.errors import (
    ConnectionLostError,
    MessageTooLargeError,
    MessagingError,
    PublishNotConfirmedError,
    UnroutableError,
)
from messaging.security.seal import restored
from messaging.stores.base import Claimed, HandingOver, Outbox, StoreUnavailableError
from messaging.transports.base import Transport

__all__ = ["Relay"]

BATCH_ROWS: Final = 200
# Twice a publish at its deadline. What a killed relay held waits as long, and a backlog is to drain within a minute.
LEASE_S: Final = 30.0
# After so many tries over hours that the broker answered, somebody must look at it.
ATTEMPTS_MAX: Final = 100
_POLL_S: Final = 1.0
# A deletion is a transaction: it waits for company, but a crash meanwhile sends twice.
_DELETE_AFTER_S: Final = 0.05
# What is handed over beyond that is left to be claimed: the broker may be away for long.
_TAKEN_MAX_ROWS: Final = 1_000
_TAKEN_MAX_BYTES: Final = 8 * 1024 * 1024
_DELAY_FIRST_S: Final = 1.0
_DELAY_MAX_S: Final = 60.0
_DOUBLINGS_MAX: Final = 10
# While the broker is away: what waits leaves soon after it is back, however long that took.
_AWAY_DELAY_MAX_S: Final = 5.0

# The broker is away, blocks, or a queue is full: however long that lasts, the row waits.
_NOT_THE_ROWS_FAULT: Final = (ConnectionLostError, PublishNotConfirmedError)

log = structlog.get_logger()


class Relay:
    """Empties the outbox of one service; several may run side by side.

    Args:
        outbox: The rows.
        transport: The way out.
        owner: Names this process in the leases.
        timeout_s: Deadline of one publish, seconds; below the lease.
    """

    def __init__(self, outbox: Outbox, *, transport: Transport, owner: str, timeout_s: float) -> None:
        self._outbox = outbox
        self._transport = transport
        self._owner = owner
        # Another name: what is held here, and is yet to be published, its own claims must not take either.
        self._taking_owner = f"{owner}+"
        self._timeout_s = min(timeout_s, LEASE_S / 2)
        self._wanted = asyncio.Event()
        self._is_idle = True
        self._is_finishing = False
        self._is_taking = False
        self._taken: deque[tuple[float, Claimed]] = deque()
        self._taken_bytes = 0
        # Confirmed and still there, and since when the oldest of them.
        self._sent: list[Claimed] = []
        self._sent_since_s = 0.0
        self._must_look = True
        self._looked_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether the last look found nothing and no commit came since."""
        return self._is_idle and not self._wanted.is_set()

    @property
    def has_room(self) -> bool:
        """Whether it takes more of what is committed."""
        return len(self._taken) < _TAKEN_MAX_ROWS and self._taken_bytes < _TAKEN_MAX_BYTES

    def take(self, rows: Sequence[Claimed], *, leaves_more: bool) -> None:
        """Take rows that are leased to this relay."""
        now_s = asyncio.get_running_loop().time()
        for row in rows:
            self._taken.append((now_s, row))
            self._taken_bytes += len(row.body)
        self._must_look = self._must_look or leaves_more
        self._wanted.set()

    def note_commit(self) -> None:
        """Say that a handler's work was committed: its rows are to be looked for, unless they were handed over."""
        if not self._is_taking:
            self.wake()

    def wake(self) -> None:
        """Say that rows were committed that nobody holds."""
        self._must_look = True
        self._wanted.set()

    def finish(self) -> None:
        """Let `run` end once the outbox is empty: what was published is deleted too, or it would leave twice."""
        self._is_finishing = True
        self.wake()

    async def run(self) -> None:
        """Relay until told to finish; if it is cut off, its leases run out and another process goes on."""
        if not isinstance(self._outbox, HandingOver):
            await self._run()
            return
        self._outbox.hand_over(self, owner=self._taking_owner, lease_s=LEASE_S)
        self._is_taking = True
        try:
            await self._run()
        finally:
            self._is_taking = False
            self._outbox.keep(self._taking_owner)

    async def _run(self) -> None:
        while True:
            try:
                count = await self.relay_once()
            except StoreUnavailableError as error:
                log.warning("outbox.unavailable", reason=str(error))
                count = 0
            except Exception as error:  # noqa: BLE001 - if it ended, everything committed from now on would stay
                # Not its words: those of a database may hold what was to be written.
                log.warning("outbox.unavailable", reason=f"a defect: {type(error).__name__}")
                count = 0
            self._is_idle = count == 0 and not self._sent
            if count or self._wanted.is_set():
                continue
            if self._is_finishing:
                return
            await self._rest()

    async def relay_once(self) -> int:
        """Publish what was taken, and one batch of what is found; returns how many rows were looked at."""
        # Until the look has ended, nobody may take the outbox for empty.
        self._is_idle = False
        self._wanted.clear()
        count = await self._relay_taken()
        await self._delete_sent()
        now_s = asyncio.get_running_loop().time()
        if self._must_look or now_s - self._looked_s >= _POLL_S:
            count += await self._relay_found()
        return count

    async def _relay_taken(self) -> int:
        fresh, stale = self._next_taken()
        if stale:
            # Its lease is half over: another relay might take it while it is under way.
            await self._outbox.release([row.id for row in stale])
            self._must_look = True
        if fresh:
            problems: dict[int, MessagingError | None] = {}
            await self._publish_side_by_side(fresh, problems)
            if not self._sent:
                self._sent_since_s = asyncio.get_running_loop().time()
            self._sent += [row for row in fresh if problems[row.id] is None]
            await self._put_back(fresh, problems)
        return len(fresh) + len(stale)

    def _next_taken(self) -> tuple[list[Claimed], list[Claimed]]:
        """Return the next batch: what can be published in time, and what cannot."""
        fresh: list[Claimed] = []
        stale: list[Claimed] = []
        oldest_s = asyncio.get_running_loop().time() - LEASE_S / 2
        while self._taken and len(fresh) < BATCH_ROWS:
            taken_s, row = self._taken.popleft()
            self._taken_bytes -= len(row.body)
            (fresh if taken_s > oldest_s else stale).append(row)
        return fresh, stale

    async def _delete_sent(self) -> None:
        """Delete what is confirmed, many rows at a time: each deletion is a transaction."""
        age_s = asyncio.get_running_loop().time() - self._sent_since_s
        is_time = self._is_finishing or len(self._sent) >= BATCH_ROWS or age_s >= _DELETE_AFTER_S
        if self._sent and is_time:
            await self._outbox.delete(self._sent)
            self._sent = []

    async def _relay_found(self) -> int:
        rows = await self._outbox.claim(limit=BATCH_ROWS, lease_s=LEASE_S, owner=self._owner)
        self._looked_s = asyncio.get_running_loop().time()
        # Where there were some there may be more.
        self._must_look = bool(rows)
        if not rows:
            return 0
        lanes: dict[str, list[Claimed]] = {}
        for row in rows:
            if row.partition_key is not None:
                lanes.setdefault(row.partition_key, []).append(row)
        problems: dict[int, MessagingError | None] = {}
        await asyncio.gather(
            self._publish_side_by_side([row for row in rows if row.partition_key is None], problems),
            *(self._publish_in_order(lane, problems) for lane in lanes.values()),
        )
        sent = [row for row in rows if row.id in problems and problems[row.id] is None]
        if sent:
            await self._outbox.delete(sent)
        await self._put_back(rows, problems)
        untried = [row.id for row in rows if row.id not in problems]
        if untried:
            await self._outbox.release(untried)
        return len(problems)

    async def _publish_side_by_side(self, rows: Sequence[Claimed], problems: dict[int, MessagingError | None]) -> None:
        """Publish all at once, without a task for each, noting what came of each."""
        loop = asyncio.get_running_loop()
        outcomes: list[asyncio.Future[None]] = []
        try:
            for row in rows:
                outcomes.append(outcome := loop.create_future())
                self._transport.submit(
                    restored(row.body), row.route, row.label, timeout_s=self._timeout_s, outcome=outcome
                )
            for row, outcome in zip(rows, outcomes, strict=True):
                problems[row.id] = await _outcome_of(row, outcome)
        finally:
            for outcome in outcomes:
                # Cut off: nobody waits for them any more.
                if not outcome.cancel() and not outcome.cancelled():
                    outcome.exception()

    async def _publish_in_order(self, lane: Sequence[Claimed], problems: dict[int, MessagingError | None]) -> None:
        """Publish one after the other, noting what came of each, until one fails for now or the lease is half over."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LEASE_S / 2
        for row in lane:
            if row is not lane[0] and loop.time() > until_s:
                return
            problems[row.id] = problem = await self._publish(row)
            if problem is not None and not _is_hopeless(row, problem):
                return

    async def _publish(self, row: Claimed) -> MessagingError | None:
        publish = self._transport.publish(restored(row.body), row.route, row.label, timeout_s=self._timeout_s)
        return await _outcome_of(row, publish)

    async def _put_back(self, rows: Sequence[Claimed], problems: Mapping[int, MessagingError | None]) -> None:
        for row in rows:
            problem = problems.get(row.id)
            if problem is None:
                continue
            if _is_hopeless(row, problem):
                await self._outbox.park(row, reason=str(problem))
                log.error("outbox.parked", message_id=row.label.message_id, type=row.label.type, reason=str(problem))
                continue
            longest_s = _AWAY_DELAY_MAX_S if isinstance(problem, _NOT_THE_ROWS_FAULT) else _DELAY_MAX_S
            delay_s = min(_DELAY_FIRST_S * 2.0 ** min(row.attempts, _DOUBLINGS_MAX), longest_s)
            await self._outbox.postpone(row, delay_s=delay_s, reason=str(problem))
            if not isinstance(problem, ConnectionLostError):
                log.warning("outbox.postponed", message_id=row.label.message_id, delay_s=delay_s, reason=str(problem))

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_DELETE_AFTER_S if self._sent else _POLL_S):
                await self._wanted.wait()
        except TimeoutError:
            return


async def _outcome_of(row: Claimed, publish: Awaitable[None]) -> MessagingError | None:
    try:
        await publish
    except UnroutableError as error:
        # An event that nobody hears is no error; a command waits for the service that handles it.
        return error if row.route.mandatory else None
    except MessagingError as error:
        return error
    return None


def _is_hopeless(row: Claimed, problem: MessagingError) -> bool:
    """Tell whether a row can never leave."""
    is_worn_out = row.attempts + 1 >= ATTEMPTS_MAX and not isinstance(problem, _NOT_THE_ROWS_FAULT)
    return is_worn_out or isinstance(problem, MessageTooLargeError)
