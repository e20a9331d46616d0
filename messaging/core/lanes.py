"""`Lanes`: what may run now. One after the other within a lane, side by side across lanes, at most so many at once.

Everything in a lane waits for the one before it to be done, also while that rests between two tries; those at rest take
no room from other lanes. While anything suspect is held, one runs at a time and the oldest first: if that kills the
worker, it is known which it was (docs/failure.md, "Crash fuse").
"""

import heapq
import itertools
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Lanes", "Place"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Place(Generic[T]):
    """One item in its lane.

    Attributes:
        lane: Its lane.
        item: The item.
        number: Its turn of arrival; lower is older.
        is_suspect: Whether it came back so often that it may be what kills.
    """

    lane: int | None
    item: T
    number: int
    is_suspect: bool

    def __lt__(self, other: "Place[T]") -> bool:
        return self.number < other.number


class Lanes(Generic[T]):
    """Keeps the order.

    Args:
        width: How many may run at once; ≥ 1.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._numbers = itertools.count()
        # The first of each lane is under way or in `_ready`.
        self._lanes: dict[int | None, deque[Place[T]]] = {}
        self._ready: list[Place[T]] = []
        self._under_way: set[Place[T]] = set()
        self._resting: set[Place[T]] = set()
        self._suspects = 0

    @property
    def running(self) -> int:
        """How many run; those at rest do not."""
        return len(self._under_way) - len(self._resting)

    @property
    def held(self) -> int:
        """How many are here in all."""
        return sum(len(lane) for lane in self._lanes.values())

    def put(self, lane: int | None, item: T, *, is_suspect: bool = False) -> None:
        """Add an item at the end of its lane."""
        place = Place(lane, item, next(self._numbers), is_suspect)
        self._suspects += is_suspect
        waiting = self._lanes.setdefault(lane, deque())
        waiting.append(place)
        if len(waiting) == 1:
            heapq.heappush(self._ready, place)

    def next(self) -> Place[T] | None:
        """Return the oldest that may run now, which from now on does, or None."""
        width = 1 if self._suspects else self._width
        if not self._ready or self.running >= width:
            return None
        place = heapq.heappop(self._ready)
        self._under_way.add(place)
        return place

    def rest(self, place: Place[T]) -> None:
        """Let one that runs rest: its lane waits, the others get its room."""
        self._resting.add(place)

    def resume(self, place: Place[T]) -> None:
        """Let one at rest run again, whether there is room or not."""
        self._resting.discard(place)

    def done(self, place: Place[T]) -> None:
        """End one that was under way: the next of its lane may run."""
        self._under_way.discard(place)
        self._resting.discard(place)
        self._suspects -= place.is_suspect
        lane = self._lanes[place.lane]
        lane.popleft()
        if lane:
            heapq.heappush(self._ready, lane[0])
        else:
            del self._lanes[place.lane]

    def lose(self) -> None:
        """Forget what waits: it comes again. Lanes of what is under way stay taken until that is done."""
        self._ready.clear()
        self._lanes = {place.lane: deque([place]) for place in self._under_way}
        self._suspects = sum(place.is_suspect for place in self._under_way)
