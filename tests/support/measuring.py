"""How much an act costs: bytes at its peak, processor seconds at its best."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Cost", "fastest_s", "measured"]


@dataclass
class Cost:
    """What an act took."""

    peak_bytes: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the peak of Python's memory inside, above what was there before."""
    cost = Cost()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield cost
        _, peak = tracemalloc.get_traced_memory()
        cost.peak_bytes = peak - before
    finally:
        tracemalloc.stop()


def fastest_s(act: Callable[[], object], *, times: int = 5) -> float:
    """Return the shortest of some runs by processor time: what else the machine does only makes a run longer."""
    best = float("inf")
    for _ in range(times):
        begin = time.process_time()
        act()
        best = min(best, time.process_time() - begin)
    return best
