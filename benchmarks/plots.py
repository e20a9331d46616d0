"""The results as pictures: bars of a comparison, lines of a curve. Needs the `bench` extra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

from benchmarks.contestants import Contestant
from benchmarks.curve_fits import Curve
from benchmarks.figures import CONSUME, PUBLISH, REQUEST, figure_of
from benchmarks.tournament import Outcome

mpl.use("Agg")

from matplotlib import pyplot as plt

__all__ = ["draw_comparison", "draw_curves"]

OURS: Final = "#1f6f8b"
THEIRS: Final = "#b8b8b8"
DPI: Final = 110


def draw_comparison(
    path: Path, contestants: Sequence[Contestant], outcomes: Mapping[str, Outcome], *, subtitle: str
) -> None:
    """Draw throughput of everybody, a panel for each discipline with a window; lines from the lowest to the highest."""
    disciplines = (PUBLISH, CONSUME, REQUEST)
    picture, panels = plt.subplots(1, len(disciplines), figsize=(15, 5))
    for panel, discipline in zip(panels, disciplines, strict=True):
        found = [
            (contestant, figure_of(list(values)))
            for contestant in contestants
            if (values := outcomes[contestant.name].values(discipline, "per_s").values())
        ]
        found.sort(key=lambda pair: pair[1].median)
        medians = [figure.median for _, figure in found]
        spreads = [
            [figure.median - figure.lowest for _, figure in found],
            [figure.highest - figure.median for _, figure in found],
        ]
        panel.barh(
            [contestant.title.replace("*", "").replace("`", "") for contestant, _ in found],
            medians,
            xerr=spreads,
            color=[OURS if contestant.is_ours else THEIRS for contestant, _ in found],
            ecolor="#555555",
        )
        panel.set_title(discipline)
        panel.set_xlabel("per second (more is better)")
        panel.spines[["top", "right"]].set_visible(False)
    picture.suptitle(f"Signed and encrypted (blue) against plaintext (grey)\n{subtitle}", fontsize=11)
    picture.tight_layout()
    picture.savefig(path, dpi=DPI)
    plt.close(picture)


def draw_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Draw one panel for each curve: what was measured, and the line that was fitted where there is one."""
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    picture, panels = plt.subplots(lines, columns, figsize=(5.2 * columns, 3.8 * lines), squeeze=False)
    flat = [panel for line in panels for panel in line]
    for panel, curve in zip(flat, curves, strict=False):
        xs = [point.x for point in curve.points]
        for name in curve.series:
            ys = [point.values[name] for point in curve.points]
            drawn = panel.plot(xs, ys, marker="o", label=name)
            if (fit := curve.fits.get(name)) is not None:
                panel.plot(xs, [fit.at(x) for x in xs], linestyle=":", color=drawn[0].get_color())
        if min(xs) > 0 and max(xs) / min(xs) > 20:
            panel.set_xscale("log")
            if curve.is_log:
                panel.set_yscale("log")
        if panel.get_yscale() == "linear":
            panel.set_ylim(bottom=0)
        panel.set_title(curve.title, fontsize=10)
        panel.set_xlabel(curve.x_title)
        panel.set_ylabel(curve.y_title)
        panel.legend(fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in flat[len(curves) :]:
        panel.set_visible(False)
    picture.tight_layout()
    picture.savefig(path, dpi=DPI)
    plt.close(picture)
