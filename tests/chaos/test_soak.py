"""Half an hour of steady work: nothing grows. `make soak`; SOAK_S says how long, in seconds.

Once a minute the load pauses until nothing is under way. Then each process says what it holds (`resting.py`), the
broker says how many channels and connections there are, and the work goes on; `growth.py` judges. A burst before the
first look fills pools and heaps to where a burst brings them. The control runs the same with a worker that leaks.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.conftest import BUILD
from tests.chaos.findings import Finding
from tests.chaos.growth import FIGURES, LIMITS, Growth, judged, table
from tests.chaos.history import What, read_history
from tests.chaos.leaking import Leak
from tests.chaos.resting import held
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S

pytestmark = [pytest.mark.broker, pytest.mark.postgres, pytest.mark.timeout(3 * 3_600)]

SOAK_S: Final = float(os.environ.get("SOAK_S") or 1_800)
RATE: Final = 40.0
BURST: Final = 1_500
MIX: Final[Mapping[What, int]] = {What.APPLY: 20, What.ASK: 5, What.SPOIL: 1}
# Work between two looks, which take some ten seconds; two thirds of the looks are judged.
BETWEEN_S: Final = 50.0
CONTROL_S, CONTROL_BETWEEN_S = 160.0, 12.0
FEWEST_LOOKS: Final = 9
# The second delay of a failed message is 5 s, and each look at the broker takes seconds on a busy machine.
REST_TIMEOUT_S: Final = 120.0
BURST_TIMEOUT_S: Final = 300.0
BROKER: Final = "broker"

Found = dict[tuple[str, str], list[tuple[float, float]]]


async def counted(rig: Rig, what: str) -> float:
    """Return how many channels or connections the broker has."""
    listed = await asyncio.to_thread(rig.node.ctl, f"list_{what}", "pid", timeout_s=CTL_TIMEOUT_S)
    return float(len(listed.splitlines()))


async def look(rig: Rig, found: Found, *, at_s: float) -> None:
    """Let everything come to rest, note all figures, and let the work go on."""
    loads = {f"load {load.pid}": await held(load, rig.folder, timeout_s=REST_TIMEOUT_S) for load in rig.loads}
    await rig.rested(REST_TIMEOUT_S)
    workers = {
        f"{worker.service} {worker.pid}": await held(worker, rig.folder, timeout_s=REST_TIMEOUT_S)
        for worker in rig.workers
    }
    broker = {what: await counted(rig, what) for what in ("channels", "connections")}
    for process, figures in {**workers, **loads, BROKER: broker}.items():
        for figure, value in figures.items():
            found.setdefault((process, figure), []).append((at_s, value))
    for load in rig.loads:
        load.signal(signal.SIGUSR2)


async def soaked(rig: Rig, *, lasting_s: float, between_s: float) -> Found:
    """Work steadily with a look now and then; a worker that is there already takes part."""
    await rig.start("witness")
    await rig.start(count=2 - len(rig.of("chaos")))
    await rig.load(rate=1_000.0, limit=BURST, mix=MIX)
    await rig.load_ended(BURST_TIMEOUT_S)
    rig.loads.clear()
    await rig.load(rate=RATE, mix=MIX)

    found: Found = {}
    began_s, looks = time.monotonic(), 0
    while (at_s := time.monotonic() - began_s) < lasting_s or looks < FEWEST_LOOKS:
        await look(rig, found, at_s=at_s)
        looks += 1
        await asyncio.sleep(between_s)
    return found


@pytest.mark.soak
async def test_nothing_grows(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig = postgres_rig

    found = await soaked(rig, lasting_s=SOAK_S, between_s=min(BETWEEN_S, SOAK_S / FEWEST_LOOKS))
    await rig.recovered()
    finding, judgement = await rig.judged(f"none: {SOAK_S / 60:.0f} minutes of steady work")
    findings.append(finding)
    growths = judged(found)
    write_report(BUILD, "soak", found, growths, calls=finding.messages)

    assert judgement.problems == {}
    assert finding.held
    assert_complete(rig, found)
    assert [growth for growth in growths if growth.is_too_much] == []


async def test_a_worker_that_leaks_is_caught_beside_one_that_does_not(postgres_rig: Rig) -> None:
    rig = postgres_rig
    (leaking,) = await rig.start(CHAOS_LEAK=",".join(Leak))

    found = await soaked(rig, lasting_s=CONTROL_S, between_s=CONTROL_BETWEEN_S)
    growths = judged(found)
    write_report(BUILD, "soak-control", found, growths, calls=len(read_history(rig.history_file)))

    assert_complete(rig, found)
    exceeded = {(growth.process, growth.figure) for growth in growths if growth.is_too_much}
    culprit = f"chaos {leaking.pid}"
    assert {figure for process, figure in exceeded if process == culprit} == set(FIGURES) - {"channels", "connections"}
    # Memory is still warming up after so short a time; what is counted is not.
    assert {figure for process, figure in exceeded if process != culprit} <= {"RSS MiB", "blocks"}


def assert_complete(rig: Rig, found: Found) -> None:
    """Every figure of every process was looked at every time."""
    processes = {process for process, _ in found} - {BROKER}
    own = set(LIMITS) - {"channels", "connections"}
    assert len(processes) == len(rig.workers) + len(rig.loads)
    assert set(found) == {(process, figure) for process in processes for figure in own} | {
        (BROKER, "channels"),
        (BROKER, "connections"),
    }
    assert len({len(points) for points in found.values()}) == 1


def write_report(folder: Path, name: str, found: Found, growths: list[Growth], *, calls: int) -> None:
    """Write the table, and the figures as they were taken."""
    folder.mkdir(parents=True, exist_ok=True)
    lasted_s = max(at_s for points in found.values() for at_s, _ in points)
    text = f"{lasted_s:.0f} seconds, {calls} calls, {RATE:.0f} a second\n\n{table(growths)}\n"
    (folder / f"{name}.md").write_text(text)
    series = [{"process": process, "figure": figure, "points": points} for (process, figure), points in found.items()]
    (folder / f"{name}.json").write_text(json.dumps(series) + "\n")
    print(text)  # noqa: T201 - the report is what the run is for
