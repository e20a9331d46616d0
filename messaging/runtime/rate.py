"""`RateLimit`: so many per second, and how many were left out since."""

from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Admits at most `per_s` acts in each second of a monotonic clock."""

    def __init__(self, *, per_s: int, monotonic_s: Callable[[], float]) -> None:
        self._per_s = per_s
        self._monotonic_s = monotonic_s
        self._second = -1
        self._admitted = 0
        self._suppressed = 0

    def admit(self) -> int | None:
        """Return how many were suppressed since the last admitted act, or None when this one is suppressed too."""
        second = int(self._monotonic_s())
        if second != self._second:
            self._second, self._admitted = second, 0
        if self._admitted >= self._per_s:
            self._suppressed += 1
            return None
        self._admitted += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
