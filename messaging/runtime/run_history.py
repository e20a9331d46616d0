"""`RunHistory`: the failed runs of a message over all its deliveries, where a store remembers them.

It is told for people who look at a dead letter, and decides nothing: what a database that did not answer was not told
is missing, and nothing else comes of that. Runs whose process died are missing as well.
"""

from collections.abc import Sequence

import structlog

from messaging.core.fault import HISTORY_MAX, Attempt
from messaging.runtime.handling import Handling
from messaging.stores.base import StoreUnavailableError
from messaging.stores.failed_runs import FailedRuns

__all__ = ["RunHistory"]

log = structlog.get_logger()


class RunHistory:
    """Keeps what `Handling.failures` says beyond the delivery.

    Args:
        runs: The store's; None where nothing durable remembers.
    """

    def __init__(self, runs: FailedRuns | None) -> None:
        self._runs = runs

    async def note(self, handling: Handling) -> None:
        """Remember the failed runs of a delivery that will come again; only once, however often it is asked."""
        failures = handling.failures
        if self._runs is None or not failures or not handling.holds_lease:
            return
        try:
            await self._runs.note(handling.lease.key, failures)
        except StoreUnavailableError as error:
            log.info("delivery.unremembered", reason=str(error), **handling.described())
        else:
            handling.failures = ()

    async def of(self, handling: Handling) -> Sequence[Attempt]:
        """Return the failed runs of a message that is given up, oldest first; empty where nothing durable remembers."""
        if self._runs is None or not handling.holds_lease:
            return ()
        await self.note(handling)
        try:
            remembered = await self._runs.of(handling.lease.key, limit=HISTORY_MAX)
        except StoreUnavailableError:
            remembered = ()
        return (*remembered, *handling.failures)[-HISTORY_MAX:]
