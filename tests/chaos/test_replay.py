"""Replay under fire, at full size: each step twenty times, and one letter among fifty thousand, in flat memory."""

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from messaging.cli.broker_node import PrivateNode
from messaging.runtime.failpoint import Step
from tests.chaos.findings import Finding, now
from tests.support.graveyard import Graveyard, Moved, open_graveyard

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3 * 3_600)]

KILLS = 20
MANY = 50_000
WINDOW = 32
# What a pass may take that dies at the end of it: for the others there is always more.
TAKEN = 40
# A busy machine moves some dozens a second through a database.
LONGEST_S = 300.0 + MANY / 20
REPLAY_STEPS = [Step.BEFORE_REPLAY, Step.AFTER_REPLAY, Step.AFTER_LETTER, Step.BEFORE_RETURN]


@pytest.fixture
async def yard(chaos_node: PrivateNode, tmp_path: Path) -> AsyncIterator[Graveyard]:
    async with open_graveyard(tmp_path, chaos_node.url) as opened:
        yield opened


def peak_mib() -> float:
    """Return the most memory that any program of ours has needed so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def note(folder: Path, words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.txt").write_text(f"{words}\n")


async def found(yard: Graveyard, fault: str, wanted: Counter[int]) -> Finding:
    """Return what a run showed, once the service has done its work."""
    await yard.settled(timeout_s=LONGEST_S)
    effects = await yard.effects()
    return Finding(
        fault=fault,
        seed=0,
        messages=wanted.total(),
        confirmed=wanted.total(),
        duplicates=await yard.depth("shop", "refused"),
        twice=(effects - wanted).total(),
        lost=(wanted - effects).total(),
        dead=await yard.depth("shop", "dead"),
        recovery_s=0.0,
        drain_s=0.0,
        held=effects == wanted,
        at=now(),
    )


@pytest.mark.parametrize("step", REPLAY_STEPS)
async def test_a_replayer_that_is_killed_again_and_again(yard: Graveyard, step: Step, findings: list[Finding]) -> None:
    numbers = await yard.bury(KILLS * (WINDOW + max(KILLS, TAKEN)))
    yard.mended.add("shop")
    at_the_end = step is Step.BEFORE_RETURN

    deaths = 0
    for times in range(1, KILLS + 1):
        limit = ["--limit", str(TAKEN)] if at_the_end else []
        deaths += (await yard.replay("shop", *limit, failpoint=f"{step}:{1 if at_the_end else times}")).was_killed
    last = await yard.replay("shop")
    finding = await found(yard, f"replayer SIGKILL at {step}, {KILLS} times", Counter(numbers))
    findings.append(finding)

    assert deaths == KILLS
    assert last.code == 0, last.err
    assert finding.held
    assert finding.dead == 0
    assert finding.duplicates <= deaths * WINDOW


async def test_one_of_many_is_found_in_flat_memory(yard: Graveyard, run_folder: Path, findings: list[Finding]) -> None:
    await yard.bury(100, note="x" * 2_000)
    few = await yard.replay("shop", "--limit", "1")
    few_mib = peak_mib()
    await yard.until_dead("shop", 100)
    await yard.bury(MANY // 2, note="x" * 2_000)
    await yard.users.publish(Moved(number=MANY))
    await yard.until_dead("shop", 101 + MANY // 2)
    await yard.bury(MANY // 2, note="x" * 2_000)
    [oldest] = await yard.operator.dead_letters.list("shop", limit=1)
    yard.mended.add("shop")

    by_id = await yard.replay("shop", oldest.id, timeout_s=LONGEST_S)
    by_name = await yard.replay("shop", "--name", "users.moved", timeout_s=LONGEST_S)
    await yard.settled(timeout_s=LONGEST_S)
    only = await yard.effects()
    one_mib = peak_mib()
    everything = await yard.replay("shop", timeout_s=LONGEST_S)
    all_mib = peak_mib()
    wanted = Counter([*range(100), *range(MANY // 2), *range(MANY // 2), MANY])
    finding = await found(yard, f"one of {MANY} dead letters, then all of them", wanted)
    findings.append(finding)

    assert few.code == by_id.code == by_name.code == everything.code == 0, (by_id.err, by_name.err, everything.err)
    assert f"replayed 1, 0 failed, {MANY + 100} stay dead" in by_id.out
    assert f"replayed 1, 0 failed, {MANY + 99} stay dead" in by_name.out
    assert (only.total(), only[MANY]) == (2, 1)
    assert f"replayed {MANY + 99}, 0 failed, 0 stay dead" in everything.out
    assert finding.held
    # A slice is 16 MiB; a hundred bytes or so are kept of each message that this pass replays.
    assert one_mib - few_mib < 64, (few_mib, one_mib)
    assert all_mib - few_mib < 96, (few_mib, all_mib)
    words = f"{few_mib:.0f} for 100, {one_mib:.0f} for one of {MANY}, {all_mib:.0f} for all"
    await asyncio.to_thread(note, run_folder, f"peak of a replayer, MiB: {words}")
