"""A clock that a test moves by hand, and the ambient made of it."""

from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from messaging.core.ambient import Ambient

__all__ = ["FixedClock"]


@dataclass(slots=True)
class FixedClock:
    """Time stands still until somebody sets `now_ms`; ids count up, chance is always one half."""

    now_ms: int = 1_700_000_000_000
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def ambient(self) -> Ambient:
        """The ambient that shows this clock."""
        return Ambient(
            now_ms=lambda: self.now_ms,
            monotonic_s=lambda: self.now_ms / 1000,
            new_id=lambda: UUID(int=next(self._ids)),
            jitter=lambda: 0.5,
        )
