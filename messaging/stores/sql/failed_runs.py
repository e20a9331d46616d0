"""Failed runs in the database: a row for each, outside of the handler's transaction, which its failure has undone."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, select

from messaging.core.fault import Attempt
from messaging.stores.base import InboxKey
from messaging.stores.sql.database import Database, mapped
from messaging.stores.sql.schema import FAILED_RUN

__all__ = ["SqlFailedRuns"]

# No message lives longer (docs/spec.md), so none is tried again later; a dead letter has its own copy.
_KEPT_MS: Final = 30 * 24 * 3_600_000
_PURGE_ROWS: Final = 500


class SqlFailedRuns:
    """See `FailedRuns` for the methods."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, key: InboxKey, attempts: Sequence[Attempt]) -> None:
        """Remember runs that failed."""
        keep_until_ms = self._database.now_ms() + _KEPT_MS
        async with self._database.writing() as connection:
            for attempt in attempts:
                row = FAILED_RUN.insert().values(
                    service=key.service,
                    sender=key.sender,
                    message_id=key.message_id,
                    failed_at_ms=attempt.at_ms,
                    error=attempt.error,
                    keep_until_ms=keep_until_ms,
                )
                await connection.execute(row)

    async def of(self, key: InboxKey, *, limit: int) -> tuple[Attempt, ...]:
        """Return the last runs of a message that failed, oldest first."""
        wanted = (
            select(FAILED_RUN.c.failed_at_ms, FAILED_RUN.c.error)
            .where(
                FAILED_RUN.c.service == key.service,
                FAILED_RUN.c.sender == key.sender,
                FAILED_RUN.c.message_id == key.message_id,
            )
            .order_by(FAILED_RUN.c.id.desc())
            .limit(limit)
        )
        with mapped(only_ours=True):
            async with self._database.engine.connect() as connection:
                rows = (await connection.execute(wanted)).all()
        return tuple(Attempt(at_ms=row.failed_at_ms, error=row.error) for row in reversed(rows))

    async def purge(self) -> int:
        """Remove rows of messages that are no longer tried, a few hundred at a time; returns how many."""
        old = select(FAILED_RUN.c.id).where(FAILED_RUN.c.keep_until_ms < self._database.now_ms()).limit(_PURGE_ROWS)
        async with self._database.writing() as connection:
            return (await connection.execute(delete(FAILED_RUN).where(FAILED_RUN.c.id.in_(old)))).rowcount
