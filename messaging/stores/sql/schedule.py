"""The durable schedule: a message for later is a row until its time, and is sealed when it is moved to the outbox.

One transaction seals and moves (`FOR UPDATE SKIP LOCKED` on PostgreSQL), so a crash leaves the row as it was, two
replicas never release the same one, and a cancellation either comes first or learns that it came too late. Ended rows
keep no payload and go after seven days.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, and_, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from messaging.core.schedule import Cancellation
from messaging.errors import ConfigurationError, MessagingError
from messaging.stores.base import Outgoing, Released, Scheduled, Waiting
from messaging.stores.sql.database import Database, mapped
from messaging.stores.sql.outbox import REASON_MAX_CHARS
from messaging.stores.sql.schema import SCHEDULE
from messaging.stores.sql.staging import Staging

__all__ = ["SqlSchedule", "cancel", "purge", "schedule"]

ENDED_KEPT_MS: Final = 7 * 24 * 3_600_000
# What cannot be sealed waits for keys or a grant, which people bring.
DELAY_MAX_S: Final = 300.0
_DOUBLINGS_MAX: Final = 10
_PURGE_ROWS: Final = 500
_WAITING: Final = "waiting"

Connected = AsyncSession | AsyncConnection


async def schedule(connected: Connected, database: Database, service: str, scheduled: Scheduled) -> None:
    """Insert one row inside the caller's transaction, or find the same one there.

    Raises:
        ConfigurationError: the id is on the schedule for another time, or was cancelled.
    """
    row = {
        "service": service,
        "message_id": scheduled.message_id,
        "message_type": scheduled.message_type,
        "draft": scheduled.draft,
        "deliver_at_ms": scheduled.deliver_at_ms,
        "due_at_ms": scheduled.deliver_at_ms,
        "state": _WAITING,
        "created_at_ms": database.now_ms(),
    }
    with mapped():
        done: Any = await connected.execute(database.insert(SCHEDULE).values(**row).on_conflict_do_nothing())
        if done.rowcount == 1:
            return
        found = (await connected.execute(select(SCHEDULE).where(_is(service, scheduled.message_id)))).one()
    if found.state == Cancellation.CANCELLED:
        raise ConfigurationError(f"message {scheduled.message_id} was cancelled: send it anew, under another id")
    if found.deliver_at_ms != scheduled.deliver_at_ms:
        raise ConfigurationError(
            f"message {scheduled.message_id} is on the schedule for {_shown(found.deliver_at_ms)}: cancel it and send "
            "it anew, under another id"
        )


async def cancel(connected: Connected, database: Database, service: str, message_id: UUID) -> Cancellation:
    """Cancel inside the caller's transaction; waits for a release of the same row."""
    with mapped():
        done: Any = await connected.execute(
            update(SCHEDULE)
            .where(_is(service, message_id), SCHEDULE.c.state == _WAITING)
            .values(state=Cancellation.CANCELLED.value, draft=None, ended_at_ms=database.now_ms())
        )
        if done.rowcount == 1:
            return Cancellation.CANCELLED
        state = (await connected.execute(select(SCHEDULE.c.state).where(_is(service, message_id)))).scalar()
    # A row that was not there a moment ago may just have been written by somebody else: it was unknown.
    return Cancellation.UNKNOWN if state in (None, _WAITING) else Cancellation(state)


class SqlSchedule:
    """The rows of one service that wait for their time; see `Schedule` for the methods."""

    def __init__(self, database: Database, service: str) -> None:
        self._database = database
        self._service = service
        self._staging = Staging(database, service)

    async def add(self, scheduled: Scheduled) -> None:
        """Keep a message until its time, in a transaction of its own."""
        async with self._database.writing() as connection:
            await schedule(connection, self._database, self._service, scheduled)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Cancel in a transaction of its own."""
        async with self._database.writing() as connection:
            return await cancel(connection, self._database, self._service, message_id)

    async def release(
        self, seal: Callable[[bytes], Awaitable[Outgoing | None]], *, limit: int, now_ms: int | None = None
    ) -> Released:
        """Move what is due to the outbox, sealed, in one transaction."""
        due = (
            select(SCHEDULE)
            .where(*self._is_waiting(), SCHEDULE.c.due_at_ms <= self._now(now_ms))
            .order_by(SCHEDULE.c.due_at_ms)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._database.writing() as connection:
            rows = (await connection.execute(due)).all()
            # Side by side: what is sealed in one turn of the event loop shares a signature.
            sealed = await asyncio.gather(*(seal(bytes(row.draft)) for row in rows), return_exceptions=True)
            failed = [(row, one) for row, one in zip(rows, sealed, strict=True) if isinstance(one, BaseException)]
            sent = [(row, one) for row, one in zip(rows, sealed, strict=True) if not isinstance(one, BaseException)]
            await self._staging.write(connection, [outgoing for _, outgoing in sent if outgoing is not None])
            await self._end(connection, [row.message_id for row, _ in sent])
            reasons = [(row.message_id, _reason(error)) for row, error in failed]
            for (row, _), (_, reason) in zip(failed, reasons, strict=True):
                delay_s = min(2.0 ** min(row.attempts, _DOUBLINGS_MAX), DELAY_MAX_S)
                await self._change(
                    connection,
                    row,
                    attempts=SCHEDULE.c.attempts + 1,
                    problem=reason[:REASON_MAX_CHARS],
                    due_at_ms=self._now(now_ms) + int(delay_s * 1000),
                )
        return Released(sent=[row.message_id for row, _ in sent], failed=reasons)

    async def next_due_s(self, *, now_ms: int | None = None) -> float | None:
        """Return in how many seconds the next one is due."""
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                next_due = select(func.min(SCHEDULE.c.due_at_ms) - self._now(now_ms)).where(*self._is_waiting())
                left_ms = (await connection.execute(next_due)).scalar()
        return None if left_ms is None else float(left_ms) / 1000

    async def waiting(self, *, limit: int) -> Sequence[Waiting]:
        """Return what waits, the next due first."""
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                rows = await connection.execute(
                    select(SCHEDULE).where(*self._is_waiting()).order_by(SCHEDULE.c.due_at_ms).limit(limit)
                )
                return [_waiting(row) for row in rows]

    def _now(self, now_ms: int | None) -> Any:
        return self._database.now_ms() if now_ms is None else literal(now_ms, BigInteger)

    def _is_waiting(self) -> tuple[Any, Any]:
        return SCHEDULE.c.service == self._service, SCHEDULE.c.state == _WAITING

    async def _end(self, connection: AsyncConnection, ids: Sequence[UUID]) -> None:
        if ids:
            await connection.execute(
                update(SCHEDULE)
                .where(SCHEDULE.c.service == self._service, SCHEDULE.c.message_id.in_(ids))
                .values(state=Cancellation.SENT.value, draft=None, ended_at_ms=self._database.now_ms())
            )

    async def _change(self, connection: AsyncConnection, row: Any, **values: Any) -> None:
        await connection.execute(update(SCHEDULE).where(_is(self._service, row.message_id)).values(values))


async def purge(database: Database) -> int:
    """Remove rows that ended long ago, of all services, a few hundred at a time; returns how many."""
    old = (
        select(SCHEDULE.c.service, SCHEDULE.c.message_id)
        .where(SCHEDULE.c.ended_at_ms < database.now_ms() - ENDED_KEPT_MS)
        .limit(_PURGE_ROWS)
    )
    async with database.writing() as connection:
        rows = (await connection.execute(old)).all()
        for row in rows:
            await connection.execute(delete(SCHEDULE).where(_is(*row)))
    return len(rows)


def _is(service: str, message_id: UUID) -> Any:
    return and_(SCHEDULE.c.service == service, SCHEDULE.c.message_id == message_id)


def _waiting(row: Any) -> Waiting:
    return Waiting(
        message_id=row.message_id,
        message_type=row.message_type,
        deliver_at_ms=row.deliver_at_ms,
        created_at_ms=row.created_at_ms,
        attempts=row.attempts,
        problem=row.problem,
    )


def _reason(error: BaseException) -> str:
    if not isinstance(error, Exception):
        raise error
    # The words of other libraries may hold values of the message.
    return str(error) if isinstance(error, MessagingError) else f"a defect: {type(error).__name__}"


def _shown(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat()
