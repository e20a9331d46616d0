"""Half an hour of steady work: nothing grows. `make soak`; SOAK_S says how long, in seconds.

Each worker is looked at every few seconds from outside (memory, descriptors, threads) and says itself how many tasks
its event loop has; the broker says how many channels there are. A straight line is fitted to the second half of each
figure, when caches are full; growth is what that line says for a whole hour.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.conftest import BUILD
from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.programs import Program
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.soak, pytest.mark.timeout(3 * 3_600)]

SOAK_S: Final = float(os.environ.get("SOAK_S") or 1_800)
LOOK_S: Final = 5.0
RATE: Final = 60.0
# What a whole hour may add: above the noise of a quarter of an hour, far below one in a thousand messages (216).
LIMITS: Final[Mapping[str, float]] = {
    "RSS MiB": 20.0,
    "descriptors": 15.0,
    "threads": 15.0,
    "tasks": 15.0,
    "channels": 5.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one process.

    Attributes:
        process, figure: Whose and which.
        first, last, highest: Values.
        per_hour: Growth of the second half.
    """

    process: str
    figure: str
    first: float
    last: float
    highest: float
    per_hour: float


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return by how much a straight line through the points rises in one unit of time; 0 for fewer than two."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    return (
        sum((at - middle) * (value - mean) for at, value in zip(times, values, strict=True)) / spread if spread else 0.0
    )


def row(process: str, figure: str, points: Sequence[tuple[float, float]]) -> Row:
    """Sum up one figure over time."""
    later = points[len(points) // 2 :]
    values = [value for _, value in points]
    return Row(
        process=process,
        figure=figure,
        first=values[0],
        last=values[-1],
        highest=max(values),
        per_hour=slope([at for at, _ in later], [value for _, value in later]) * 3_600,
    )


def look(program: Program) -> dict[str, float]:
    """Return what the kernel says of a process."""
    folder = Path("/proc") / str(program.pid)
    pages = int((folder / "statm").read_text().split()[1])
    return {
        "RSS MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "descriptors": float(len(list((folder / "fd").iterdir()))),
        "threads": float(len(list((folder / "task").iterdir()))),
    }


async def channels(rig: Rig) -> float:
    """Return how many channels the broker has."""
    listed = await asyncio.to_thread(rig.node.ctl, "list_channels", "pid", timeout_s=90)
    return float(len(listed.splitlines()))


@pytest.mark.postgres
async def test_nothing_grows(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig = postgres_rig
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    await rig.start("witness", CHAOS_COUNT_TASKS_S=str(LOOK_S))
    await rig.start(count=2, CHAOS_COUNT_TASKS_S=str(LOOK_S))
    await rig.load(rate=RATE, mix={What.APPLY: 20, What.ASK: 5, What.SPOIL: 1})
    watched = {f"{worker.service} {worker.pid}": worker for worker in rig.workers}

    began_s = time.monotonic()
    while (at_s := time.monotonic() - began_s) < SOAK_S:
        for name, program in [*watched.items(), *((f"load {load.pid}", load) for load in rig.loads)]:
            for figure, value in look(program).items():
                points.setdefault((name, figure), []).append((at_s, value))
        points.setdefault(("broker", "channels"), []).append((at_s, await channels(rig)))
        await asyncio.sleep(LOOK_S)
    await rig.recovered()
    finding, judgement = await rig.judged(f"none: {SOAK_S / 60:.0f} minutes of steady work")
    findings.append(finding)
    for name, worker in watched.items():
        said = [event for event in worker.events() if event["event"] == "tasks.counted"]
        points[name, "tasks"] = [(LOOK_S * number, float(event["count"])) for number, event in enumerate(said)]

    rows = [row(process, figure, found) for (process, figure), found in points.items()]
    write_report(rows)
    assert judgement.problems == {}
    assert finding.held
    assert len(rows) == len(points) > len(LIMITS)
    grown = [found for found in rows if found.per_hour > LIMITS[found.figure]]
    assert not grown


def write_report(rows: Sequence[Row]) -> None:
    """Write build/chaos/soak.md."""
    lines = ["| process | figure | first | last | highest | growth in an hour |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {found.process} | {found.figure} | {found.first:.1f} | {found.last:.1f} | {found.highest:.1f} "
        f"| {found.per_hour:+.2f} |"
        for found in rows
    ]
    BUILD.mkdir(parents=True, exist_ok=True)
    text = "\n".join([f"{SOAK_S:.0f} seconds, {RATE:.0f} calls a second", "", *lines, ""])
    (BUILD / "soak.md").write_text(text)
    print(text)  # noqa: T201 - the report is what the run is for


def test_a_line_has_its_slope() -> None:
    assert slope([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]) == pytest.approx(2.0)
    assert slope([1.0], [4.0]) == 0.0
