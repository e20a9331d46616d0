"""Replay under fire, at full size: each step twenty times, and one letter among fifty thousand, in flat memory."""

import resource
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from messaging.cli.broker_node import PrivateNode
from messaging.runtime.failpoint import Step
from tests.chaos.conftest import IS_SMOKE
from tests.support.graveyard import Graveyard, open_graveyard

pytestmark = [pytest.mark.broker, pytest.mark.timeout(1800)]

KILLS = 2 if IS_SMOKE else 20
MANY = 50_000
WINDOW = 32
REPLAY_STEPS = [Step.BEFORE_REPLAY, Step.AFTER_REPLAY, Step.AFTER_LETTER]


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


@pytest.mark.smoke
@pytest.mark.parametrize("step", REPLAY_STEPS)
async def test_a_replayer_that_is_killed_again_and_again(yard: Graveyard, step: Step) -> None:
    numbers = await yard.bury(KILLS * (WINDOW + 8))
    yard.mended.add("shop")

    deaths = 0
    for times in range(1, KILLS + 1):
        deaths += (await yard.replay("shop", failpoint=f"{step}:{times}")).was_killed
    last = await yard.replay("shop")
    await yard.settled()

    assert deaths >= KILLS // 2
    assert last.code in (0, 5), last.err
    assert await yard.effects() == Counter(numbers)
    assert await yard.depth("shop", "dead") == 0
    assert await yard.depth("shop", "refused") <= deaths * WINDOW


async def test_one_of_many_is_found_in_flat_memory(yard: Graveyard, run_folder: Path) -> None:
    await yard.bury(100, note="x" * 2_000)
    few = await yard.replay("shop", "--limit", "1")
    few_mib = peak_mib()
    await yard.until_dead("shop", 100)
    await yard.bury(MANY, note="x" * 2_000)
    [wanted] = await yard.operator.dead_letters.list("shop", limit=1)
    yard.mended.add("shop")

    one = await yard.replay("shop", wanted.id)
    one_mib = peak_mib()
    everything = await yard.replay("shop")
    all_mib = peak_mib()
    await yard.settled()

    assert few.code == one.code == everything.code == 0, (few.err, one.err, everything.err)
    assert f"replayed 1, 0 failed, {MANY + 99} stay dead" in one.out
    assert f"replayed {MANY + 99}, 0 failed, 0 stay dead" in everything.out
    assert sum((await yard.effects()).values()) == MANY + 100
    # A slice is 16 MiB; a hundred bytes or so are kept of each message that this pass replays.
    assert one_mib - few_mib < 64, (few_mib, one_mib)
    assert all_mib - few_mib < 96, (few_mib, all_mib)
    words = f"{few_mib:.0f} for 100, {one_mib:.0f} for one of {MANY}, {all_mib:.0f} for all"
    note(run_folder, f"peak of a replayer, MiB: {words}")
