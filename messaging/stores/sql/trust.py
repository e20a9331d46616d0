"""The newest trust bundle that a service has used, in the database: what an older one must be measured against.

Whoever can write into a keys folder can bring back a bundle that the roots once signed; the database is another place,
with other keys to it.
"""

from sqlalchemy import select

from messaging.stores.base import SeenBundle
from messaging.stores.sql.database import Database, mapped
from messaging.stores.sql.schema import TRUST

__all__ = ["SqlSeenBundles"]


class SqlSeenBundles:
    """See `SeenBundles` for the methods."""

    def __init__(self, database: Database, service: str) -> None:
        self._database = database
        self._service = service

    async def newest(self, realm: str) -> SeenBundle | None:
        """Return the newest one of a realm.

        Raises:
            StoreUnavailableError: the database does not answer, or lacks the table.
        """
        wanted = select(TRUST.c.version, TRUST.c.digest).where(TRUST.c.service == self._service, TRUST.c.realm == realm)
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else SeenBundle(version=row.version, digest=row.digest)

    async def record(self, realm: str, seen: SeenBundle) -> None:
        """Remember a bundle; of two replicas that do so at once the newer one stays.

        Raises:
            StoreUnavailableError: the database does not answer, or lacks the table.
        """
        values = {"version": seen.version, "digest": seen.digest, "seen_at_ms": self._database.now_ms()}
        insert = self._database.insert(TRUST).values(service=self._service, realm=realm, **values)
        insert = insert.on_conflict_do_update(
            index_elements=[TRUST.c.service, TRUST.c.realm], set_=values, where=TRUST.c.version < seen.version
        )
        async with self._database.writing() as connection:
            await connection.execute(insert)
