"""`InboxRows`: how many rows each sender adds to the durable inbox in an hour, and an alarm when it is too many.

Each message that ran is a row for as long as it could run again (docs/trust.md). A sender gone wild, or one whose key
was stolen, fills the disk with authentic messages; nobody else can. So rows are counted by sender.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from messaging.stores.base import Counting, StoreUnavailableError

__all__ = ["HOUR_S", "InboxRows"]

HOUR_S: Final = 3_600.0
_LOOK_EVERY_S: Final = 600.0

log = structlog.get_logger()


class InboxRows:
    """Counts the rows of one service.

    Args:
        store: The durable store.
        service: Whose inbox.
        limit: The alarm: so many rows of one sender in an hour.
    """

    def __init__(self, store: Counting, *, service: str, limit: int) -> None:
        self._store = store
        self._service = service
        self._limit = limit
        self._per_sender: Mapping[str, int] = {}

    @property
    def per_sender(self) -> Mapping[str, int]:
        """Sender → rows of the hour before the last look; only authentic senders, so no stranger makes it long."""
        return self._per_sender

    async def run(self) -> None:
        """Look now and then, for ever; a database that is away leaves the figures as they were."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Count, and warn of each sender beyond the limit."""
        try:
            self._per_sender = await self._store.inbox_rows(self._service, within_s=HOUR_S)
        except StoreUnavailableError:
            return
        for sender, rows in self._per_sender.items():
            if rows > self._limit:
                log.warning("inbox.crowded", sender=sender, rows=rows, limit=self._limit)
