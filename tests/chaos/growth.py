"""The judge of a soak: does a figure grow, and by more than an hour may add.

Figures are taken at rest (`resting.py`), so that what a busy moment holds is not mistaken for a leak. The first third
warms up: caches, pools and the heap fill. Over the rest lies a Theil-Sen line, the median of the slopes between all
pairs of points, which a few points beside it do not move; growth is what that line rises in an hour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

__all__ = ["FIGURES", "LIMITS", "WARM", "Growth", "Points", "grown", "judged", "table", "theil_sen"]

Points = Sequence[tuple[float, float]]
"""Seconds since the begin, and what there was."""

WARM: Final = 1 / 3
_FEWEST: Final = 4
# What a whole hour may add, at a load of some 100 000 calls in it: of what malloc has lent 40 bytes for each call, of
# Python's blocks one for every fifth. The memory of the process rises with the busiest moment so far, so other work on
# the machine adds to it what nobody holds. Of what is counted, two more in the judged part of half an hour are too
# many; one is not, for it may be the last connection of a pool.
LIMITS: Final[Mapping[str, float]] = {
    "RSS MiB": 20.0,
    "malloc MiB": 4.0,
    "blocks": 20_000.0,
    "tasks": 4.0,
    "threads": 4.0,
    "descriptors": 4.0,
    "channels": 4.0,
    "connections": 4.0,
}
FIGURES: Final = tuple(LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One figure of one process.

    Attributes:
        process, figure: Whose and which.
        first, warm, last, highest: What there was at the begin, after the warm-up, at the end, and at most.
        per_hour: What the line through the points after the warm-up rises in an hour.
    """

    process: str
    figure: str
    first: float
    warm: float
    last: float
    highest: float
    per_hour: float

    @property
    def is_too_much(self) -> bool:
        """Whether that is more than an hour may add."""
        return self.per_hour > LIMITS[self.figure]


def theil_sen(points: Points) -> float:
    """Return the median of the slopes between all pairs of points, per second.

    Raises:
        ValueError: there are no two points at different times.
    """
    slopes = [
        (after - before) / (end - begin) for (begin, before), (end, after) in combinations(points, 2) if end > begin
    ]
    if not slopes:
        raise ValueError("a slope needs two points at different times; let the soak run longer (SOAK_S)")
    return median(slopes)


def judged(points: Mapping[tuple[str, str], Points]) -> list[Growth]:
    """Sum up each figure of each process.

    Args:
        points: By process and figure; the figure is one of `FIGURES`.

    Raises:
        ValueError: a figure has too few points after the warm-up to say anything.
    """
    return [_growth(process, figure, found) for (process, figure), found in points.items()]


def grown(points: Mapping[tuple[str, str], Points]) -> list[Growth]:
    """Return what grew by more than it may."""
    return [found for found in judged(points) if found.is_too_much]


def table(found: Sequence[Growth]) -> str:
    """Return it as Markdown."""
    head = ["| process | figure | first | warm | last | highest | growth in an hour | limit |", "|" + "---|" * 8]
    rows = [
        f"| {one.process} | {one.figure} | {_text(one.first)} | {_text(one.warm)} | {_text(one.last)} "
        f"| {_text(one.highest)} | {one.per_hour:+,.1f} | {LIMITS[one.figure]:,.0f}{' exceeded' * one.is_too_much} |"
        for one in found
    ]
    return "\n".join([*head, *rows])


def _growth(process: str, figure: str, points: Points) -> Growth:
    later = points[round(len(points) * WARM) :]
    if len(later) < _FEWEST:
        raise ValueError(f"{figure} of {process}: {len(points)} points are too few; let the soak run longer (SOAK_S)")
    values = [value for _, value in points]
    return Growth(
        process=process,
        figure=figure,
        first=values[0],
        warm=later[0][1],
        last=values[-1],
        highest=max(values),
        per_hour=theil_sen(later) * 3_600,
    )


def _text(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
