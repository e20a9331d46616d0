"""What a pass over dead letters tells: while it runs, and when it has ended. Counts are exact, letters are samples.

A pass may act on more letters than fit into memory, so a report keeps the first `LETTERS_KEPT`, without content.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from messaging.core.dead_letter import DeadLetter

__all__ = ["LETTERS_KEPT", "DiscardReport", "ReplayProgress", "ReplayReport", "Tally"]

LETTERS_KEPT: Final = 1_000
# Looking is quicker than acting: a pass that finds nothing to do says so now and then.
_TOLD_EVERY: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """How far a pass is.

    Attributes:
        total: Letters that it will look at, at most.
        looked_at: Letters that it has looked at.
        done: Letters replayed.
        failed: Letters whose replay failed.
    """

    total: int
    looked_at: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a pass did.

    Attributes:
        looked_at: Letters that it saw.
        replayed: Letters that were replayed (or, of a dry run, would be).
        failed: Letters whose replay failed; they are still dead.
        kept: Letters that it saw and that are still dead.
        stopped_because: Why the pass ended early, if it did.
        letters: What was replayed, without content; the first `LETTERS_KEPT` of them.
    """

    looked_at: int
    replayed: int
    failed: int
    kept: int
    stopped_because: str | None
    letters: tuple[DeadLetter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardReport:
    """What a discard did; see `ReplayReport`."""

    looked_at: int
    discarded: int
    kept: int
    letters: tuple[DeadLetter, ...]


class Tally:
    """Counts what one pass does.

    Args:
        total: Letters that the queue held at the start.
        stop_after: How many failures in a row stop it.
        on_progress: Told of each act, and now and then of letters that were only looked at.
    """

    def __init__(
        self, *, total: int, stop_after: int, on_progress: Callable[[ReplayProgress], None] | None = None
    ) -> None:
        self.total = total
        self.looked_at = 0
        self.done = 0
        self.failed = 0
        # Copies of letters that were acted upon: they are gone from the queue, but none of them was among the kept.
        self.repeated = 0
        self.stopped: str | None = None
        self.letters: list[DeadLetter] = []
        self._stop_after = stop_after
        self._in_a_row = 0
        self._on_progress = on_progress

    def looked(self) -> None:
        """Count a letter that was seen."""
        self.looked_at += 1
        if self.looked_at % _TOLD_EVERY == 0:
            self._tell()

    def succeeded(self, letter: DeadLetter) -> None:
        """Count a letter that was acted upon."""
        self.done += 1
        self._in_a_row = 0
        if len(self.letters) < LETTERS_KEPT:
            self.letters.append(letter.without_content())
        self._tell()

    def failed_with(self, error: Exception) -> None:
        """Count a failure; too many in a row stop the pass."""
        self.failed += 1
        self._in_a_row += 1
        if self._in_a_row >= self._stop_after:
            self.stopped = self.stopped or f"{self._in_a_row} failures in a row, the last: {error}"
        self._tell()

    def replay_report(self) -> ReplayReport:
        """Return what the pass did, as a replay."""
        return ReplayReport(
            looked_at=self.looked_at,
            replayed=self.done,
            failed=self.failed,
            kept=self._kept(),
            stopped_because=self.stopped,
            letters=tuple(self.letters),
        )

    def discard_report(self) -> DiscardReport:
        """Return what the pass did, as a discard."""
        return DiscardReport(
            looked_at=self.looked_at, discarded=self.done, kept=self._kept(), letters=tuple(self.letters)
        )

    def record(self) -> dict[str, object]:
        """Return the counts, for a record of the pass."""
        return {
            "looked_at": self.looked_at,
            "done": self.done,
            "failed": self.failed,
            "stopped_because": self.stopped,
        }

    def _kept(self) -> int:
        return self.looked_at - self.done - self.repeated

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                ReplayProgress(total=self.total, looked_at=self.looked_at, done=self.done, failed=self.failed)
            )
