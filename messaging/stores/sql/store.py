"""`SqlStore`: the inbox and the outboxes of services in one database, beside their business tables.

Example:
    orders = Service("orders", settings, store=SqlStore(create_async_engine("postgresql+asyncpg://…")))
"""

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from messaging.stores.sql.database import Database
from messaging.stores.sql.inbox import SqlInbox
from messaging.stores.sql.outbox import SqlOutbox
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

    @property
    def session_type(self) -> type[AsyncSession]:
        """Class of the session that a handler's transaction gives."""
        return AsyncSession

    def outbox(self, service: str) -> SqlOutbox:
        """Return the outbox of a service."""
        return SqlOutbox(self._database, service)

    def seen_bundles(self, service: str) -> SqlSeenBundles:
        """Return what a service remembers of the trust bundles that it used."""
        return SqlSeenBundles(self._database, service)

    async def create_tables(self) -> None:
        """Make the library's own tables where they are missing; `migrations` brings older ones up to date."""
        await self._database.create_tables()

    async def purge(self) -> int:
        """Remove rows whose message can no longer run; returns how many went."""
        removed = total = await self.inbox.purge()
        while removed:
            removed = await self.inbox.purge()
            total += removed
        return total
