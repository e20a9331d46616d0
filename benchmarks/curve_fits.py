"""What a curve says: is it a straight line, and if not, where does it leave it. Pure arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Curve", "Fit", "Point", "fit_line", "sentence"]

# A cost that is a line plus noise stays this close to it on a shared machine.
STRAIGHT: Final = 0.15
FLAT: Final = 0.15


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one place of a curve, by series."""

    x: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """A line through the points, weighted so that each relative distance counts alike.

    Attributes:
        start: Value at 0.
        slope: Growth for each unit.
        deviation: Largest distance of a point from the line, as a share of the point.
        worst_x: Where that is.
    """

    start: float
    slope: float
    deviation: float
    worst_x: float

    def at(self, x: float) -> float:
        """Return the line's value."""
        return self.start + self.slope * x


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One curve with its series.

    Attributes:
        name: In files.
        title, x_title, y_title: For people.
        unit, of: What a line through it is said in, such as µs and byte.
        points: In order of x.
        is_log: Whether the picture's height is logarithmic where its width is.
        is_cost: Whether a line is to be expected; throughput has none.
        fits: Lines by series.
        measured: On which machine and when, as the head of that run says.
    """

    name: str
    title: str
    x_title: str
    y_title: str
    unit: str
    of: str
    points: Sequence[Point]
    is_log: bool = False
    is_cost: bool = True
    fits: Mapping[str, Fit] = field(default_factory=dict)
    measured: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series."""
        return tuple(self.points[0].values) if self.points else ()


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """Return the line that makes the relative distances smallest (least squares with weights 1/y²).

    Raises:
        ValueError: fewer than two different places, or a value that is not positive.
    """
    if len(set(xs)) < 2 or min(ys) <= 0:
        raise ValueError("a line needs two different places and positive values")
    weights = [1.0 / (y * y) for y in ys]
    total = sum(weights)
    mean_x = sum(weight * x for weight, x in zip(weights, xs, strict=True)) / total
    mean_y = sum(weight * y for weight, y in zip(weights, ys, strict=True)) / total
    squares = sum(weight * (x - mean_x) ** 2 for weight, x in zip(weights, xs, strict=True))
    products = sum(weight * (x - mean_x) * (y - mean_y) for weight, x, y in zip(weights, xs, ys, strict=True))
    slope = products / squares
    start = mean_y - slope * mean_x
    deviation, worst_x = max((abs(y - (start + slope * x)) / y, x) for x, y in zip(xs, ys, strict=True))
    return Fit(start, slope, deviation, worst_x)


def sentence(name: str, fit: Fit, *, unit: str, of: str) -> str:
    """Return what a fit says in one sentence.

    Args:
        name: Of the series.
        fit: Its line.
        unit: Of its values, such as µs; empty where the series' name has it.
        of: What grows, such as byte.
    """
    sign, suffix = "-" if fit.slope < 0 else "+", unit and f" {unit}"
    line = f"{_shown(fit.start)}{suffix} {sign} {_shown(abs(fit.slope))}{suffix} for each {of}"
    if fit.deviation <= STRAIGHT:
        return f"{name}: a straight line, {line} (no point further off than {fit.deviation:.0%})."
    return f"{name}: not a straight line: {line} misses by {fit.deviation:.0%} at {_shown(fit.worst_x)}."


def _shown(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.3g}"
