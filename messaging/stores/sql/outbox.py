"""The durable outbox: what a handler sends is a row of its transaction; a relay publishes it afterwards.

Rows are claimed with a lease (`FOR UPDATE SKIP LOCKED` on PostgreSQL), so several relays share the work and a killed
one is taken over. Never paged by `id > last`: numbers commit out of order. A row is deleted once its publish is
confirmed; a crash in between publishes twice, and the receiver's inbox absorbs that.

Rows with a partition key leave in their order. Only the first of them may be claimed by itself; whoever holds it takes
those behind it too. So one relay at a time has a key, whatever the transactions of others can see.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Exists,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from messaging.core.sealed import Label, Route
from messaging.stores.base import Claimed, Taker
from messaging.stores.sql.database import Database, mapped
from messaging.stores.sql.direct import Direct
from messaging.stores.sql.schema import OUTBOX
from messaging.stores.sql.staging import Staging

__all__ = ["SqlOutbox"]

REASON_MAX_CHARS: Final = 500


class SqlOutbox:
    """The rows of one service that wait to leave; see `Outbox` for the methods."""

    def __init__(self, database: Database, staging: Staging) -> None:
        self._database = database
        self._service = staging.service
        self._staging = staging
        self._delete = Direct(database.engine, _REMOVING, ("gone_id", "gone_message_id"))

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        """Hand over what is committed in this process; see `HandingOver`."""
        self._staging.hand_over(taker, owner=owner, lease_s=lease_s)

    def keep(self, owner: str) -> None:
        """Hand nothing over any more; see `HandingOver`."""
        self._staging.keep(owner)

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[Claimed]:
        """Take the oldest rows that are due and free, for `lease_s` seconds; see `Outbox.claim`."""
        now_ms = self._database.now_ms()
        is_free = and_(
            OUTBOX.c.service == self._service,
            OUTBOX.c.is_parked.is_(False),
            OUTBOX.c.due_at_ms <= now_ms,
            or_(OUTBOX.c.claimed_until_ms < now_ms, OUTBOX.c.claimed_by == owner),
        )
        lease = {"claimed_by": owner, "claimed_until_ms": now_ms + int(lease_s * 1000)}
        is_first = or_(OUTBOX.c.partition_key.is_(None), ~self._has_earlier())
        async with self._database.writing() as connection:
            rows = list((await connection.execute(_taking(is_free & is_first, lease, limit=limit))).all())
            keys = {row.partition_key for row in rows} - {None}
            if keys and len(rows) < limit:
                taken = [row.id for row in rows]
                behind = is_free & OUTBOX.c.partition_key.in_(keys) & OUTBOX.c.id.not_in(taken)
                rows += (await connection.execute(_taking(behind, lease, limit=limit - len(rows)))).all()
        return [_claimed(row) for row in sorted(rows, key=_number_of)]

    async def release(self, ids: Sequence[int]) -> None:
        """Give rows back that were not tried."""
        async with self._database.writing() as connection:
            free = {"claimed_by": None, "claimed_until_ms": 0}
            await connection.execute(update(OUTBOX).where(OUTBOX.c.id.in_(list(ids))).values(free))

    async def delete(self, rows: Sequence[Claimed]) -> None:
        """Remove rows whose publish is confirmed."""
        # In one order everywhere: two relays that hold the same rows must not wait for one another in a circle.
        gone = [
            {"gone_id": row.id, "gone_message_id": UUID(hex=row.label.message_id)}
            for row in sorted(rows, key=_number_of)
        ]
        async with self._database.writing() as connection:
            await self._delete.before_commit(connection, gone)

    async def postpone(self, row: Claimed, *, delay_s: float, reason: str) -> None:
        """Give a row back for a later try."""
        await self._change(
            row,
            attempts=OUTBOX.c.attempts + 1,
            claimed_by=None,
            claimed_until_ms=0,
            due_at_ms=self._database.now_ms() + int(delay_s * 1000),
            problem=reason[:REASON_MAX_CHARS],
        )

    async def park(self, row: Claimed, *, reason: str) -> None:
        """Set a row aside that can never leave: visible, and in nobody's way."""
        await self._change(row, is_parked=True, claimed_by=None, claimed_until_ms=0, problem=reason[:REASON_MAX_CHARS])

    async def depth(self) -> tuple[int, int]:
        """Return how many rows wait and how many are parked."""
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                counted = await connection.execute(
                    select(OUTBOX.c.is_parked, func.count())
                    .where(OUTBOX.c.service == self._service)
                    .group_by(OUTBOX.c.is_parked)
                )
                by_parked = {bool(parked): count for parked, count in counted}
        return by_parked.get(False, 0), by_parked.get(True, 0)

    def _has_earlier(self) -> Exists:
        """Return whether a row with the same key is in front: its presence alone counts, not who holds it."""
        earlier = OUTBOX.alias()
        return exists().where(
            earlier.c.service == self._service,
            earlier.c.partition_key == OUTBOX.c.partition_key,
            earlier.c.id < OUTBOX.c.id,
            earlier.c.is_parked.is_(False),
        )

    async def _change(self, row: Claimed, **values: Any) -> None:
        async with self._database.writing() as connection:
            which = and_(OUTBOX.c.id == row.id, OUTBOX.c.message_id == UUID(hex=row.label.message_id))
            await connection.execute(update(OUTBOX).where(which).values(values))


# SQLite gives the number of a row that is gone to another: a relay that slept through its lease must not remove that.
_REMOVING: Final = delete(OUTBOX).where(
    OUTBOX.c.id == bindparam("gone_id", type_=OUTBOX.c.id.type),
    OUTBOX.c.message_id == bindparam("gone_message_id", type_=OUTBOX.c.message_id.type),
)


def _taking(which: ColumnElement[bool], lease: dict[str, Any], *, limit: int) -> ReturningUpdate[Any]:
    due = select(OUTBOX.c.id).where(which).order_by(OUTBOX.c.id).limit(limit).with_for_update(skip_locked=True)
    return update(OUTBOX).where(OUTBOX.c.id.in_(due)).values(lease).returning(OUTBOX)


def _number_of(row: Any) -> int:
    return int(row.id)


def _claimed(row: Any) -> Claimed:
    return Claimed(
        id=row.id,
        attempts=row.attempts,
        body=bytes(row.sealed),
        route=Route(exchange=row.exchange, routing_key=row.routing_key, mandatory=row.is_mandatory),
        label=Label(message_id=row.message_id.hex, type=row.message_type),
        partition_key=row.partition_key,
    )
