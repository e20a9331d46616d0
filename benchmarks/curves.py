"""How costs grow: with messages, bodies, recipients, services, workers, prefetch, window, queue type and nodes.

    make bench-curves                    # about eight minutes
    python -m benchmarks.curves [--quick] [--full] [--only body …] [--url amqp://…] [--no-cluster]

Starts private RabbitMQ nodes, or takes `--url`. Writes `curves.md`, `.json` and `.png` into `benchmarks/results/`; with
`--only` the other curves stay there as they are, and say of which run they are. Each point is a fresh process of
`benchmarks.load`; of several runs the cheapest in CPU time counts, as noise only adds.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from benchmarks.brokers import lent_or_private, version_of
from benchmarks.curve_fits import Curve, Fit, Point, fit_line, sentence
from benchmarks.curve_reasons import REASONS
from benchmarks.curve_runs import Bench, Scale
from benchmarks.machine import described_machine
from benchmarks.plots import draw_curves
from benchmarks.programs import ProgramError, run_benchmark
from benchmarks.tables import number, rows
from messaging.errors import MessagingError

__all__ = ["CURVES", "joined", "main", "written"]

RESULTS: Final = Path(__file__).parent / "results"
QUICK: Final = Scale(
    messages=(200, 400, 800),
    bodies=(64, 4096, 262_144),
    body_messages=100,
    recipients=(1, 4),
    services=(1, 10),
    workers=(1, 2),
    depths=(1, 10, 100),
    count=400,
    share=800,
    runs=1,
)
USUAL: Final = Scale(
    messages=(1_000, 3_000, 10_000, 30_000, 100_000),
    bodies=(64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576),
    body_messages=2_000,
    recipients=(1, 2, 4, 8, 16),
    services=(1, 10, 100, 300, 1_000),
    workers=(1, 2, 4),
    depths=(1, 3, 10, 30, 100, 300, 1_000),
    count=3_000,
    share=16_000,
    runs=2,
)
FULL: Final = replace(USUAL, messages=(1_000, 10_000, 100_000, 300_000, 1_000_000), runs=3)

CURVES: Final = ("messages", "body", "recipients", "services", "workers", "prefetch", "window", "queues")

Json = dict[str, object]


def tell(words: str) -> None:
    """Say what goes on."""
    sys.stderr.write(f"{words}\n")


async def drawn(bench: Bench, only: Sequence[str], *, with_cluster: bool) -> tuple[list[Curve], dict[str, str]]:
    """Measure the chosen curves; return them, and why others are missing."""
    measures: tuple[Callable[[], Awaitable[Curve]], ...] = (
        bench.messages,
        bench.bodies,
        bench.recipients,
        bench.services,
        bench.workers,
        bench.prefetch,
        bench.window,
        lambda: bench.queues(with_cluster=with_cluster),
    )
    found: list[Curve] = []
    missing: dict[str, str] = {}
    for name, measure in zip(CURVES, measures, strict=True):
        if only and name not in only:
            continue
        began_s = time.monotonic()
        try:
            found.append(await measure())
        except (ProgramError, MessagingError, OSError) as error:
            missing[name] = str(error)
        tell(f"{name}: {missing.get(name, 'measured')}, {time.monotonic() - began_s:.0f} s")
    return found, missing


def fitted(curve: Curve) -> Curve:
    """Return the curve with a line through each of its series of costs."""
    if not curve.is_cost:
        return curve
    xs = [point.x for point in curve.points]
    fits = {name: fit_line(xs, [point.values[name] for point in curve.points]) for name in curve.series}
    return replace(curve, fits=fits)


def written(curve: Curve) -> list[str]:
    """Return a curve as Markdown: its points, whether it is a straight line, and why if it is not."""
    body = [[number(point.x), *(number(point.values[name]) for name in curve.series)] for point in curve.points]
    lines = [f"## {curve.title}", "", f"{curve.y_title}, by {curve.x_title}.", ""]
    lines += rows([curve.x_title, *curve.series], body)
    lines += [f"- {sentence(name, fit, unit=curve.unit, of=curve.of)}" for name, fit in curve.fits.items()]
    reason = REASONS.get(curve.name, "")
    return [*lines, *([f"- {reason}"] if reason else []), ""]


def joined(path: Path, fresh: Sequence[Curve], missing: Mapping[str, str]) -> tuple[list[Curve], dict[str, str]]:
    """Return what was measured now, and of an earlier run all that was not tried now.

    Args:
        path: The earlier run's JSON, there or not.
        fresh: Curves of this run.
        missing: Those that it could not measure.
    """
    earlier: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"head": "", "curves": [], "missing": {}}
    )
    found = {entry["name"]: _restored(entry, earlier["head"]) for entry in earlier["curves"]}
    found |= {curve.name: curve for curve in fresh}
    reasons = {name: why for name, why in earlier["missing"].items() if name not in found} | dict(missing)
    return [found[name] for name in CURVES if name in found and name not in missing], reasons


def _restored(entry: dict[str, Any], head: str) -> Curve:
    entry = {**entry, "measured": entry.get("measured") or head}
    points = [Point(**point) for point in entry.pop("points")]
    fits = {name: Fit(**fit) for name, fit in entry.pop("fits").items()}
    return Curve(points=points, fits=fits, **entry)


def document(curves: Sequence[Curve], missing: Mapping[str, str], head: str) -> str:
    """Return all curves as Markdown."""
    lines = ["# How costs grow", "", head, "", "![All curves](curves.png)", ""]
    for curve in curves:
        lines += written(curve)
        if curve.measured not in ("", head):
            lines[-1:] = [f"- Of an earlier run: {curve.measured}", ""]
    lines += [f"- not measured: {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines).rstrip() + "\n"


async def run(options: argparse.Namespace) -> None:
    """Measure, and write the results."""
    # The transport is measured in this process.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    scale = QUICK if options.quick else FULL if options.full else USUAL
    began_s = time.monotonic()
    with lent_or_private(options.url) as (url, _), tempfile.TemporaryDirectory() as scratch:
        version = await version_of(url)
        bench = Bench(url, scale, Path(scratch), tell)
        curves, missing = await drawn(bench, options.only, with_cluster=not options.no_cluster)
    head = (
        f"{described_machine()}. RabbitMQ {version}, Python {platform.python_version()}; "
        f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}, {(time.monotonic() - began_s) / 60:.0f} minutes. "
        "Signed, encrypted, confirmed, quorum queues where nothing else is said; CPU is user and system time."
    )
    curves = [replace(fitted(curve), measured=head) for curve in curves]
    if options.only:
        curves, missing = joined(options.out / "curves.json", curves, missing)
    text = document(curves, missing, head)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "curves.md").write_text(text)
    found: Json = {"head": head, "curves": [asdict(curve) for curve in curves], "missing": missing}
    (options.out / "curves.json").write_text(json.dumps(found, indent=1) + "\n")
    if curves:
        draw_curves(options.out / "curves.png", curves)
    print(text)  # noqa: T201 - the program's output


def main() -> None:
    """Draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small points, to see that it works")
    parser.add_argument("--full", action="store_true", help="up to 1 000 000 messages, three runs for each point")
    parser.add_argument("--only", nargs="*", default=[], choices=CURVES)
    parser.add_argument("--no-cluster", action="store_true", help="leave the three nodes out")
    parser.add_argument("--url", help="of a RabbitMQ that may be used; a private node otherwise")
    parser.add_argument("--out", type=Path, default=RESULTS)
    run_benchmark(run(parser.parse_args()))


if __name__ == "__main__":
    main()
