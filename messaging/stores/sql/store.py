"""`SqlStore`: the inbox, the outboxes and the schedules of services in one database, beside their business tables.

Example:
    orders = Service("orders", settings, store=SqlStore(create_async_engine("postgresql+asyncpg://…")))
"""

from functools import partial

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from messaging.stores.sql.database import Database
from messaging.stores.sql.failed_runs import SqlFailedRuns
from messaging.stores.sql.inbox import SqlInbox
from messaging.stores.sql.inserts import Inserts
from messaging.stores.sql.outbox import SqlOutbox
from messaging.stores.sql.schedule import SqlSchedule, purge
from messaging.stores.sql.trust import SqlSeenBundles

__all__ = ["SqlStore"]


class SqlStore:
    """Remembers messages in a database, in the transactions of the handlers.

    Args:
        engine: SQLite through aiosqlite, or PostgreSQL through asyncpg; the one that the business tables use. On
            SQLite it is given write-ahead logging, full synchronisation, and transactions that begin when they should.

    Raises:
        ConfigurationError: another kind of database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        self.inbox = SqlInbox(self._database)
        self.failed_runs = SqlFailedRuns(self._database)

    @property
    def engine(self) -> AsyncEngine:
        """The database, as it was given."""
        return self._database.engine

    @property
    def connections(self) -> int | None:
        """How many transactions may be open at once; None on SQLite (one writer) and if nothing bounds them."""
        pool = self.engine.pool
        if self._database.is_sqlite or not isinstance(pool, AsyncAdaptedQueuePool):
            return None
        overflow: int = pool._max_overflow  # noqa: SLF001 - told nowhere else
        return None if overflow < 0 else pool.size() + overflow

    @property
    def offers(self) -> tuple[type, ...]:
        """Classes of what a handler's transaction gives: a session, for less the connection under it, and `Inserts`."""
        return AsyncSession, AsyncConnection, Inserts

    def outbox(self, service: str) -> SqlOutbox:
        """Return the outbox of a service."""
        return SqlOutbox(self._database, self.inbox.staging_of(service))

    def seen_bundles(self, service: str) -> SqlSeenBundles:
        """Return what a service remembers of the trust bundles that it used."""
        return SqlSeenBundles(self._database, service)

    def schedule(self, service: str) -> SqlSchedule:
        """Return the schedule of a service."""
        return SqlSchedule(self._database, service)

    async def create_tables(self) -> None:
        """Make the library's own tables where they are missing; `migrations` brings older ones up to date."""
        await self._database.create_tables()

    async def inbox_rows(self, service: str, *, within_s: float) -> dict[str, int]:
        """Return how many rows each sender has added lately; see `Counting`."""
        return await self.inbox.rows_per_sender(service, within_s=within_s)

    async def purge(self) -> int:
        """Remove rows whose message can no longer run, and what ended on schedules long ago; returns how many went."""
        total = 0
        for remove in (self.inbox.purge, self.failed_runs.purge, partial(purge, self._database)):
            while removed := await remove():
                total += removed
        return total
