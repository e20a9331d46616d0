"""`Relay`: publishes what handlers committed to the outbox. Confirmed first, deleted after: never lost, at worst twice.

A commit wakes it; a slow poll finds what a killed process left behind. Rows are claimed with a lease, published side by
side, and deleted in one go. A row that cannot leave now comes back later; one that never can is parked: visible, and in
nobody's way. Rows with a partition key leave one after the other, each once the one before it is confirmed; behind one
that comes back later they wait, behind one that is parked they do not.
"""

import asyncio
from collections.abc import Mapping, Sequence
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
from messaging.stores.base import Claimed, Outbox, StoreUnavailableError
from messaging.transports.base import Transport

__all__ = ["Relay"]

BATCH_ROWS: Final = 200
# Twice a publish at its deadline. What a killed relay held waits as long, and a backlog is to drain within a minute.
LEASE_S: Final = 30.0
# After so many tries over hours that the broker answered, somebody must look at it.
ATTEMPTS_MAX: Final = 100
_POLL_S: Final = 1.0
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
        self._timeout_s = min(timeout_s, LEASE_S / 2)
        self._wanted = asyncio.Event()
        self._is_idle = True
        self._is_finishing = False

    @property
    def is_idle(self) -> bool:
        """Whether the last look found nothing and no commit came since."""
        return self._is_idle and not self._wanted.is_set()

    def wake(self) -> None:
        """Say that rows were committed."""
        self._wanted.set()

    def finish(self) -> None:
        """Let `run` end once the outbox is empty: what was published is deleted too, or it would leave twice."""
        self._is_finishing = True
        self._wanted.set()

    async def run(self) -> None:
        """Relay until told to finish; if it is cut off, its lease runs out and another process goes on."""
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
            self._is_idle = count == 0
            if count or self._wanted.is_set():
                continue
            if self._is_finishing:
                return
            await self._rest()

    async def relay_once(self) -> int:
        """Publish one batch; returns how many rows were looked at."""
        # Until the look has ended, nobody may take the outbox for empty.
        self._is_idle = False
        self._wanted.clear()
        rows = await self._outbox.claim(limit=BATCH_ROWS, lease_s=LEASE_S, owner=self._owner)
        if not rows:
            return 0
        lanes: dict[str | int, list[Claimed]] = {}
        for row in rows:
            lanes.setdefault(row.id if row.partition_key is None else row.partition_key, []).append(row)
        problems: dict[int, MessagingError | None] = {}
        await asyncio.gather(*(self._publish_in_order(lane, problems) for lane in lanes.values()))
        sent = [number for number, problem in problems.items() if problem is None]
        if sent:
            await self._outbox.delete(sent)
        await self._put_back(rows, problems)
        untried = [row.id for row in rows if row.id not in problems]
        if untried:
            await self._outbox.release(untried)
        return len(problems)

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
        try:
            await self._transport.publish(restored(row.body), row.route, row.label, timeout_s=self._timeout_s)
        except UnroutableError as error:
            # An event that nobody hears is no error; a command waits for the service that handles it.
            return error if row.route.mandatory else None
        except MessagingError as error:
            return error
        return None

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
            async with asyncio.timeout(_POLL_S):
                await self._wanted.wait()
        except TimeoutError:
            return


def _is_hopeless(row: Claimed, problem: MessagingError) -> bool:
    """Tell whether a row can never leave."""
    is_worn_out = row.attempts + 1 >= ATTEMPTS_MAX and not isinstance(problem, _NOT_THE_ROWS_FAULT)
    return is_worn_out or isinstance(problem, MessageTooLargeError)
