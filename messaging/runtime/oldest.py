"""`Oldest`: the few oldest of many, without keeping the others."""

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Oldest"]

T = TypeVar("T")


class Oldest(Generic[T]):
    """Keeps the oldest of what it is offered.

    Args:
        count: How many; None keeps all.
        age_of: When it was born: the smaller, the older. What is equally old stays in the order in which it came.
    """

    def __init__(self, count: int | None, *, age_of: Callable[[T], int]) -> None:
        self._count = count
        self._age_of = age_of
        # A heap whose first is the youngest: the first to go.
        self._kept: list[tuple[int, int, T]] = []
        self._offered = 0

    def offer(self, item: T) -> None:
        """Take it, and drop the youngest when there is one too many."""
        self._offered += 1
        heapq.heappush(self._kept, (-self._age_of(item), -self._offered, item))
        if self._count is not None and len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def first_to_last(self) -> list[T]:
        """Return what was kept, oldest first."""
        return [item for _, _, item in sorted(self._kept, key=lambda kept: kept[:2], reverse=True)]
