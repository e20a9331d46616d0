"""The durable inbox: a row for each message that ran or failed, inserted in the handler's own transaction.

The transaction is the lease. A concurrent duplicate waits at the insert and then sees the row; a crash leaves no row at
all, and the message runs again. So nothing is ever half done, and there is no lease to expire.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import BigInteger, and_, bindparam, delete, func, literal, or_, select, tuple_, update

from messaging.core.inbox import Decision, Replaying, RowState, judge
from messaging.errors import ConfigurationError
from messaging.stores.base import Grouping, InboxKey, Reservation, StoreUnavailableError
from messaging.stores.sql.database import Database, mapped
from messaging.stores.sql.direct import Direct
from messaging.stores.sql.group import Groups, GroupUnit
from messaging.stores.sql.schema import INBOX
from messaging.stores.sql.staging import Staging
from messaging.stores.sql.unit import SqlUnit

__all__ = ["SqlInbox"]

_DAY_MS: Final = 24 * 3_600_000
# A failed message may be replayed for this long; then its row goes, and with it the proof that it failed.
FAILED_KEPT_MS: Final = 90 * _DAY_MS
REPLAY_WINDOW_MS: Final = 7 * _DAY_MS
_SKEW_MS: Final = 60_000
_PURGE_ROWS: Final = 500


class SqlInbox:
    """See `Inbox` for the methods."""

    def __init__(self, database: Database) -> None:
        self._database = database
        now_ms = database.now_ms()
        # Built once: a statement's text and cache key cost more than its execution.
        self._ran = {
            "state": RowState.DONE.value,
            "processed_at_ms": now_ms,
            "keep_until_ms": database.larger(
                bindparam(_EXPIRES, type_=BigInteger) + _SKEW_MS, now_ms + REPLAY_WINDOW_MS
            ),
        }
        insert = database.insert(INBOX).values(**self._ran).on_conflict_do_nothing()
        self._insert = Direct(database.engine, insert.returning(INBOX.c.sender, INBOX.c.message_id), _GIVEN)
        self._groups = Groups(database, self._insert)
        self._stagings: dict[str, Staging] = {}

    async def state(self, key: InboxKey, *, leaf: bytes) -> RowState:
        """Return the row's state as these bytes see it."""
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                row = (await connection.execute(select(INBOX).where(_is(key)))).one_or_none()
        return RowState.ABSENT if row is None or row.leaf != leaf else RowState(row.state)

    async def reserve(
        self, key: InboxKey, *, leaf: bytes, expires_at_ms: int, lease_s: float, grouping: Grouping | None = None
    ) -> Reservation:
        """Open the transaction of a delivery if it may run, or join one with others."""
        if grouping is not None:
            values = self._values(key, leaf, expires_at_ms)
            joined = await self._groups.reserve(grouping, self.staging_of(key.service), values, key, leaf)
            if joined is not None:
                return joined
        unit = await self._begin(key.service)
        try:
            return await self._reserved(unit, key, leaf, expires_at_ms)
        except BaseException:
            await unit.close()
            raise

    async def reserve_replay(
        self,
        key: InboxKey,
        *,
        leaf: bytes,
        outer: InboxKey,
        outer_leaf: bytes,
        replaying: Replaying,
        expires_at_ms: int,
        lease_s: float,
    ) -> Reservation:
        """Open one transaction for the original and for the operator's wrapper."""
        unit = await self._begin(key.service)
        try:
            wrapper = await self._reserved(unit, outer, outer_leaf, expires_at_ms)
            if wrapper.decision is not Decision.RUN:
                return wrapper
            inner = await self._reserved(unit, key, leaf, expires_at_ms, replaying)
            return replace(inner, outer=outer, outer_leaf=outer_leaf, is_forced=replaying.force)
        except BaseException:
            await unit.close()
            raise

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        """Commit: the row says done, and what was staged may leave."""
        unit = _unit_of(reservation)
        if reply is None:
            await unit.commit()
        else:
            await unit.commit((_ANSWER, {**_row(reservation.key), _REPLY: reply}))
        return True

    async def renew(self, reservation: Reservation) -> Reservation:
        """Roll back what a failed run did and begin again; a replica that was quicker wins."""
        await self.undo(reservation)
        if reservation.outer is None:
            return await self.reserve(
                reservation.key, leaf=reservation.leaf, expires_at_ms=reservation.expires_at_ms, lease_s=0.0
            )
        return await self.reserve_replay(
            reservation.key,
            leaf=reservation.leaf,
            outer=reservation.outer,
            outer_leaf=reservation.outer_leaf,
            # The grant was checked when the first run began.
            replaying=Replaying(in_window=True, force=reservation.is_forced),
            expires_at_ms=reservation.expires_at_ms,
            lease_s=0.0,
        )

    async def undo(self, reservation: Reservation) -> None:
        """Roll back what a failed run did; the row goes with it."""
        if reservation.unit is not None:
            # A database that is gone has rolled back by itself.
            with suppress(StoreUnavailableError):
                await _unit_of(reservation).close()

    async def fail(self, reservation: Reservation) -> bool:
        """Record that the message was buried, and that the wrapper which replayed it is spent.

        What ran meanwhile stays done: the same bytes may have been delivered twice, and the other delivery succeeded.
        """
        await self.undo(reservation)
        now_ms = self._database.now_ms()
        failed = {
            "leaf": reservation.leaf,
            "state": RowState.FAILED.value,
            "reply": None,
            "processed_at_ms": now_ms,
            "keep_until_ms": now_ms + FAILED_KEPT_MS,
        }
        async with self._database.writing() as connection:
            recorded = self._database.insert(INBOX).values(**_columns(reservation.key), **failed)
            await connection.execute(
                recorded.on_conflict_do_update(
                    index_elements=[INBOX.c.service, INBOX.c.sender, INBOX.c.message_id],
                    set_=failed,
                    where=and_(
                        INBOX.c.leaf == reservation.leaf,
                        or_(INBOX.c.state != RowState.DONE.value, literal(reservation.is_forced)),
                    ),
                )
            )
            if reservation.outer is not None:
                spent = {**failed, "leaf": reservation.outer_leaf, "state": RowState.DONE.value}
                outer = self._database.insert(INBOX).values(**_columns(reservation.outer), **spent)
                await connection.execute(outer.on_conflict_do_nothing())
        return True

    async def release(self, reservation: Reservation) -> bool:
        """Roll back: the message will come again."""
        await self.undo(reservation)
        return True

    async def rows_per_sender(self, service: str, *, within_s: float) -> dict[str, int]:
        """Return how many rows each sender has added in the last `within_s` seconds, most first."""
        since_ms = self._database.now_ms() - int(within_s * 1000)
        rows = func.count().label("rows")
        counted = (
            select(INBOX.c.sender, rows)
            .where(
                # What was processed since then is kept at least until then, and by that there is an index.
                INBOX.c.keep_until_ms >= since_ms + REPLAY_WINDOW_MS,
                INBOX.c.processed_at_ms >= since_ms,
                INBOX.c.service == service,
            )
            .group_by(INBOX.c.sender)
            .order_by(rows.desc())
        )
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                return {row.sender: row.rows for row in await connection.execute(counted)}

    async def purge(self) -> int:
        """Remove rows whose message can no longer run, a few hundred at a time; returns how many."""
        async with self._database.writing() as connection:
            old = (
                select(INBOX.c.service, INBOX.c.sender, INBOX.c.message_id)
                .where(INBOX.c.keep_until_ms < self._database.now_ms())
                .limit(_PURGE_ROWS)
            )
            keys = tuple_(INBOX.c.service, INBOX.c.sender, INBOX.c.message_id)
            return (await connection.execute(delete(INBOX).where(keys.in_(old)))).rowcount

    async def _begin(self, service: str) -> SqlUnit:
        return await SqlUnit.begin(self._database, self.staging_of(service))

    def staging_of(self, service: str) -> Staging:
        """Return what writes the outbox rows of a service's handlers."""
        staging = self._stagings.get(service)
        if staging is None:
            staging = self._stagings[service] = Staging(self._database, service)
        return staging

    def _values(self, key: InboxKey, leaf: bytes, expires_at_ms: int) -> dict[str, Any]:
        return {**_columns(key), "leaf": leaf, _EXPIRES: expires_at_ms}

    async def _reserved(
        self,
        unit: SqlUnit,
        key: InboxKey,
        leaf: bytes,
        expires_at_ms: int,
        replaying: Replaying | None = None,
    ) -> Reservation:
        values = self._values(key, leaf, expires_at_ms)
        with mapped(only_ours=True):
            # Waits for a concurrent duplicate; as the first statement it opens the transaction.
            reply = None
            if await self._insert.run(unit.connection, [values]):
                decision = judge(RowState.ABSENT, same_leaf=True, replay=replaying)
            else:
                row = (await unit.connection.execute(select(INBOX).where(_is(key)).with_for_update())).one()
                decision = judge(RowState(row.state), same_leaf=row.leaf == leaf, replay=replaying)
                if decision is Decision.RUN:
                    again = update(INBOX).where(_is(key)).values(**self._ran, leaf=leaf, reply=None)
                    await unit.connection.execute(again, {_EXPIRES: expires_at_ms})
                else:
                    reply = row.reply
        if decision is not Decision.RUN:
            await unit.close()
            return Reservation(key=key, decision=decision, reply=reply)
        return Reservation(key=key, decision=decision, leaf=leaf, expires_at_ms=expires_at_ms, unit=unit)


def _is(key: InboxKey) -> Any:
    return and_(INBOX.c.service == key.service, INBOX.c.sender == key.sender, INBOX.c.message_id == key.message_id)


# Names of their own: those of columns are SQLAlchemy's where a row is changed.
_EXPIRES: Final = "expires_at_ms"
_GIVEN: Final = ("service", "sender", "message_id", "leaf", _EXPIRES)
_REPLY: Final = "kept_reply"
_ANSWER: Final = (
    update(INBOX)
    .where(
        INBOX.c.service == bindparam("of_service"),
        INBOX.c.sender == bindparam("of_sender"),
        INBOX.c.message_id == bindparam("of_message_id"),
    )
    .values(reply=bindparam(_REPLY))
)


def _row(key: InboxKey) -> dict[str, object]:
    return {f"of_{name}": value for name, value in _columns(key).items()}


def _columns(key: InboxKey) -> dict[str, object]:
    return {"service": key.service, "sender": key.sender, "message_id": key.message_id}


def _unit_of(reservation: Reservation) -> SqlUnit | GroupUnit:
    if not isinstance(reservation.unit, SqlUnit | GroupUnit):
        raise ConfigurationError("the reservation was not made by this store")
    return reservation.unit
