"""What rounds become: medians with their spread, ratios round by round. Pure arithmetic."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

__all__ = ["DISCIPLINES", "Figure", "Sample", "figure_of", "ratio_of", "samples_of"]

Json = Mapping[str, object]

PUBLISH: Final = "publish"
PUBLISH_SEQUENTIAL: Final = "publish, one at a time"
CONSUME: Final = "consume"
REQUEST: Final = "request, 64 in flight"
REQUEST_SEQUENTIAL: Final = "request, one at a time"
DISCIPLINES: Final = (PUBLISH, PUBLISH_SEQUENTIAL, CONSUME, REQUEST, REQUEST_SEQUENTIAL)
# Which discipline a program's stretch belongs to, by role and name.
_STRETCHES: Final = {
    ("publish", "windowed"): PUBLISH,
    ("publish", "sequential"): PUBLISH_SEQUENTIAL,
    ("consume", "windowed"): CONSUME,
    ("request", "windowed"): REQUEST,
    ("request", "sequential"): REQUEST_SEQUENTIAL,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over the rounds: the middle, and how far the rounds lay apart."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant's figures in one discipline and round, by quantity, such as `per_s`."""

    discipline: str
    quantities: Mapping[str, float]


def figure_of(values: Sequence[float]) -> Figure:
    """Return the median, the lowest and the highest.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no round to take a median of")
    return Figure(statistics.median(values), min(values), max(values))


def ratio_of(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Figure | None:
    """Return how often theirs goes into ours, taken round by round, for what drifts between rounds meets both.

    Args:
        ours: Value by round.
        theirs: Value by round.
    """
    pairs = [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys()) if theirs[number]]
    return figure_of(pairs) if pairs else None


def samples_of(role: str, report: Json) -> list[Sample]:
    """Return what a program's report says, a sample for each of its measured stretches."""
    found: list[Sample] = []
    for name in ("windowed", "sequential"):
        stretch = report.get(name)
        if not isinstance(stretch, Mapping):
            continue
        messages = float(stretch["messages"])
        quantities = {
            "per_s": messages / float(stretch["wall_s"]),
            "cpu_us": float(stretch["cpu_s"]) * 1e6 / messages,
            "rss_mib": float(cast("float", report["peak_rss_mib"])),
        }
        latencies = cast("Mapping[str, float]", stretch.get("latency_ms", {}))
        quantities |= {f"{rank}_ms": float(value) for rank, value in latencies.items()}
        found.append(Sample(_STRETCHES[role, name], quantities))
    return found
