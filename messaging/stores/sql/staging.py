"""`Staging`: what a handler sends becomes rows of its transaction, and after the commit goes straight to the relay.

Where a relay of this process takes them, rows are written with a lease of that relay, so that it need not look for them
and no other relay takes them. A process that dies in between leaves the lease to run out, as if its relay had claimed
them. Rows with a partition key, and what the relay has no room for, are written free and claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Select, bindparam, insert, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from messaging.stores.base import Claimed, Outgoing, Taker
from messaging.stores.sql.database import Database
from messaging.stores.sql.direct import Direct
from messaging.stores.sql.schema import OUTBOX

__all__ = ["Staging", "Written"]

_GIVEN: Final = (
    "service",
    "message_id",
    "message_type",
    "exchange",
    "routing_key",
    "is_mandatory",
    "sealed",
    "partition_key",
    "claimed_by",
    "lease_ms",
)
# A lease that ended before the row was written: it can be claimed within the same millisecond.
_FREE_MS: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relay:
    taker: Taker
    owner: str
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Written:
    """What one transaction writes: all messages, those that are leased, and the numbers of all once it is committed."""

    staged: Sequence[Outgoing] = ()
    leased_to: Taker | None = None
    numbers: Sequence[tuple[int]] = field(default=(), repr=False)


class Staging:
    """Writes rows of one service's outbox, in whatever transaction it is given.

    Args:
        database: Whose clock dates them.
        service: Whose outbox.
    """

    def __init__(self, database: Database, service: str) -> None:
        self.service = service
        self._database = database
        self._relay: _Relay | None = None
        # Built once: its text and cache key cost more than its execution.
        now_ms = database.now_ms()
        times = {
            "created_at_ms": now_ms,
            "due_at_ms": now_ms,
            "claimed_until_ms": now_ms + bindparam("lease_ms", type_=BigInteger),
        }
        # Said here, because a settled statement takes no default of the table.
        new = {"attempts": 0, "is_parked": False}
        self._insert = Direct(database.engine, insert(OUTBOX).values(**times, **new).returning(OUTBOX.c.id), _GIVEN)

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        """Lease what is written from now on; see `HandingOver`."""
        self._relay = _Relay(taker=taker, owner=owner, lease_ms=int(lease_s * 1000))

    def keep(self, owner: str) -> None:
        """Write free rows from now on, unless another owner came since."""
        if self._relay is not None and self._relay.owner == owner:
            self._relay = None

    async def check(self, connection: AsyncConnection) -> None:
        """Fail if the transaction has; on SQLite a statement that fails undoes itself alone."""
        if not self._database.is_sqlite:
            await connection.execute(_NOTHING)

    async def write(self, connection: AsyncConnection, staged: Sequence[Outgoing]) -> Written:
        """Insert all rows, at the end of the transaction; nothing for none. After the commit call `committed`."""
        if not staged:
            return Written()
        relay = self._relay
        if relay is not None and not relay.taker.has_room:
            relay = None
        rows = [self._row(outgoing, relay) for outgoing in staged]
        numbers = await self._insert.before_commit(connection, rows)
        return Written(staged, None if relay is None else relay.taker, numbers)

    def committed(self, written: Written) -> None:
        """Hand over what was leased, and say that there is more to claim if there is."""
        if not written.staged:
            return
        if written.leased_to is None:
            if self._relay is not None:
                self._relay.taker.take((), leaves_more=True)
            return
        rows = [
            _claimed(number, outgoing)
            for (number,), outgoing in zip(written.numbers, written.staged, strict=True)
            if outgoing.partition_key is None
        ]
        written.leased_to.take(rows, leaves_more=len(rows) < len(written.staged))

    def _row(self, outgoing: Outgoing, relay: _Relay | None) -> dict[str, Any]:
        if outgoing.partition_key is not None:
            relay = None
        return {
            "service": self.service,
            "message_id": UUID(hex=outgoing.label.message_id),
            "message_type": outgoing.label.type,
            "exchange": outgoing.route.exchange,
            "routing_key": outgoing.route.routing_key,
            "is_mandatory": outgoing.route.mandatory,
            "sealed": outgoing.sealed,
            "partition_key": outgoing.partition_key,
            "claimed_by": None if relay is None else relay.owner,
            "lease_ms": _FREE_MS if relay is None else relay.lease_ms,
        }


def _claimed(number: int, outgoing: Outgoing) -> Claimed:
    return Claimed(id=number, attempts=0, body=outgoing.sealed, route=outgoing.route, label=outgoing.label)


_NOTHING: Final[Select[Any]] = select(literal_column("1"))
