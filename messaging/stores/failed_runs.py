"""The port of what a store remembers of runs that failed, beyond the delivery that they were part of.

A message that is tried again comes as a fresh delivery, perhaps to another process. Whoever buries it at last can then
say when each run failed and how (docs/failure.md, "Faults").
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from messaging.core.fault import Attempt
from messaging.stores.base import InboxKey

__all__ = ["FailedRuns", "RemembersRuns"]


class FailedRuns(Protocol):
    """The failed runs of messages, by their keys in the inbox."""

    async def note(self, key: InboxKey, attempts: Sequence[Attempt]) -> None:
        """Remember runs that failed.

        Raises:
            StoreUnavailableError: the database does not answer, or lacks the table.
        """

    async def of(self, key: InboxKey, *, limit: int) -> tuple[Attempt, ...]:
        """Return the last runs of a message that failed, oldest first.

        Raises:
            StoreUnavailableError: the database does not answer, or lacks the table.
        """


@runtime_checkable
class RemembersRuns(Protocol):
    """A store that has them."""

    @property
    def failed_runs(self) -> FailedRuns:
        """What it remembers."""
