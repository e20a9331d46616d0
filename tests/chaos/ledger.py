"""The ledger of effects: what handlers really did, in their transactions, and nothing that would hide a second time."""

from collections import Counter
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Uuid, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.dml import Insert

from messaging.stores.sql import SqlStore

__all__ = ["ACCOUNTS", "Did", "Ledger", "entered", "noted"]

metadata = MetaData()
_Row = BigInteger().with_variant(Integer, "sqlite")

# No unique key beyond the row's own number: a second effect must be visible, not impossible.
EFFECTS = Table(
    "effects",
    metadata,
    Column("row", _Row, primary_key=True, autoincrement=True),
    Column("op_id", Uuid, nullable=False),
    Column("did", String(16), nullable=False),
    Column("worker", String(64), nullable=False),
)
ACCOUNTS = Table(
    "accounts", metadata, Column("number", Integer, primary_key=True), Column("cents", BigInteger, nullable=False)
)


# What was noted of accounts that have an order, numbered as it was written.
ENTRIES = Table(
    "entries",
    metadata,
    Column("row", _Row, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("number", Integer, nullable=False),
)


class Did(StrEnum):
    """What was done."""

    APPLIED = "applied"
    ANSWERED = "answered"
    HEARD = "heard"
    OVERHEARD = "overheard"
    TRANSFERRED = "transferred"
    ENTERED = "entered"


def noted(op_id: UUID, did: Did, worker: str) -> Insert:
    """Return the statement that notes one effect."""
    return insert(EFFECTS).values(op_id=op_id, did=did.value, worker=worker)


def entered(account: str, number: int) -> Insert:
    """Return the statement that notes one entry of an account."""
    return insert(ENTRIES).values(account=account, number=number)


class Ledger:
    """Reads what was noted.

    Args:
        engine: The database of the workers.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._store = SqlStore(engine)

    async def create(self) -> None:
        """Make every table that workers need, before there are any."""
        await self._store.create_tables()
        async with self._engine.begin() as connection:
            await connection.run_sync(metadata.create_all)

    async def open_accounts(self, count: int, *, cents: int) -> None:
        """Make accounts with as much on each."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(ACCOUNTS), [{"number": number, "cents": cents} for number in range(count)])

    async def counts(self) -> dict[Did, Counter[UUID]]:
        """Return how often each operation was noted, by what was done."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(select(EFFECTS.c.op_id, EFFECTS.c.did))).all()
        found: dict[Did, Counter[UUID]] = {did: Counter() for did in Did}
        for op_id, did in rows:
            found[Did(did)][op_id] += 1
        return found

    async def entries(self) -> dict[str, list[int]]:
        """Return the numbers that were entered in each account, in the order of their writing."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(ENTRIES.c.account, ENTRIES.c.number).order_by(ENTRIES.c.row))
            found: dict[str, list[int]] = {}
            for account, number in rows:
                found.setdefault(account, []).append(number)
        return found

    async def workers(self) -> set[str]:
        """Return who noted anything."""
        async with self._engine.connect() as connection:
            return set((await connection.execute(select(EFFECTS.c.worker).distinct())).scalars())

    async def balance(self) -> int:
        """Return the sum over all accounts."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(select(func.sum(ACCOUNTS.c.cents)))).scalar_one())

    async def waiting(self, service: str) -> int:
        """Return how many messages of a service are committed and have not left."""
        waiting, parked = await self._store.outbox(service).depth()
        return waiting + parked
