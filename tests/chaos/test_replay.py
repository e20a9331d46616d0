"""Replay under fire, at full size: each step twenty times, one of fifty thousand letters in flat memory, and more."""

import asyncio
import json
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from messaging.cli.broker_node import PrivateNode
from messaging.runtime.failpoint import Step
from tests.chaos.findings import Finding, now
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.graveyard import Graveyard, Moved, Replayed, open_graveyard
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(3 * 3_600)]

KILLS = 20
MANY = 50_000
WINDOW = 32
# What a pass may take that dies at the end of it: for the others there is always more.
TAKEN = 40
# A busy machine moves some dozens a second through a database.
LONGEST_S = 300.0 + MANY / 20
# Pairs of replayers, letters that one of them takes, events, deaths of whoever replays those.
PAIRS = 6
PART = 20
EVENTS = 60
DEATHS = 5
REPLAY_STEPS = [Step.BEFORE_REPLAY, Step.AFTER_REPLAY, Step.AFTER_LETTER, Step.BEFORE_RETURN]


@pytest.fixture
async def yard(chaos_node: PrivateNode, tmp_path: Path) -> AsyncIterator[Graveyard]:
    async with open_graveyard(tmp_path, chaos_node.url) as opened:
        yield opened


def peak_mib() -> float:
    """Return the most memory that any program of ours has needed so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, nothing is secret


def note(folder: Path, words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.txt").write_text(f"{words}\n")


async def found(
    yard: Graveyard, fault: str, wanted: Counter[int], *, seed: int, services: Sequence[str] = ("shop",)
) -> Finding:
    """Return what a run showed, once the services have done their work; each must have done all that is wanted."""
    due = Counter({(name, number): times for name in services for number, times in wanted.items()})
    effects: Counter[tuple[str, int]] = Counter()
    for name in services:
        await yard.settled(name, timeout_s=LONGEST_S)
        effects += Counter({(name, number): times for number, times in (await yard.effects(name)).items()})
    dead = [await yard.depth(name, "dead") for name in services]
    return Finding(
        fault=fault,
        seed=seed,
        messages=due.total(),
        confirmed=due.total(),
        duplicates=await yard.depth("shop", "refused"),
        twice=(effects - due).total(),
        lost=(due - effects).total(),
        dead=sum(dead),
        recovery_s=0.0,
        drain_s=0.0,
        held=effects == due and not any(dead),
        at=now(),
    )


@pytest.mark.parametrize("step", REPLAY_STEPS)
async def test_a_replayer_that_is_killed_again_and_again(
    yard: Graveyard, step: Step, findings: list[Finding], seed: int
) -> None:
    numbers = await yard.bury(KILLS * (WINDOW + max(KILLS, TAKEN)))
    yard.mended.add("shop")
    at_the_end = step is Step.BEFORE_RETURN

    deaths = 0
    # Each at another of its letters, in whatever order.
    for times in chance(seed).sample(range(1, KILLS + 1), KILLS):
        limit = ["--limit", str(TAKEN)] if at_the_end else []
        deaths += (await yard.replay("shop", *limit, failpoint=f"{step}:{1 if at_the_end else times}")).was_killed
    last = await yard.replay("shop")
    finding = await found(yard, f"replayer SIGKILL at {step}, {KILLS} times", Counter(numbers), seed=seed)
    findings.append(finding)

    assert deaths == KILLS
    assert last.code == 0, last.err
    assert finding.held
    assert finding.dead == 0
    assert finding.duplicates <= deaths * WINDOW


async def test_one_of_many_is_found_in_flat_memory(
    yard: Graveyard, run_folder: Path, findings: list[Finding], seed: int
) -> None:
    await yard.bury(100, note="x" * 2_000)
    few = await yard.replay("shop", "--limit", "1")
    few_mib = peak_mib()
    await yard.until_dead("shop", 100)
    # The one with another name lies somewhere among them.
    before = chance(seed).randrange(MANY)
    await yard.bury(before, note="x" * 2_000)
    await yard.users.publish(Moved(number=MANY))
    await yard.until_dead("shop", 101 + before)
    await yard.bury(MANY - before, note="x" * 2_000)
    [oldest] = await yard.operator.dead_letters.list("shop", limit=1)
    yard.mended.add("shop")

    by_id = await yard.replay("shop", oldest.id, timeout_s=LONGEST_S)
    by_name = await yard.replay("shop", "--name", "users.moved", timeout_s=LONGEST_S)
    await yard.settled(timeout_s=LONGEST_S)
    only = await yard.effects()
    one_mib = peak_mib()
    everything = await yard.replay("shop", timeout_s=LONGEST_S)
    all_mib = peak_mib()
    wanted = Counter([*range(100), *range(before), *range(MANY - before), MANY])
    finding = await found(yard, f"one of {MANY} dead letters, then all of them", wanted, seed=seed)
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


def dies(dice: random.Random, *, within: int) -> str:
    """Return a step at which a replayer dies, and at which of its letters."""
    step = dice.choice(REPLAY_STEPS)
    return f"{step}:{1 if step is Step.BEFORE_RETURN else dice.randint(1, within)}"


async def test_two_replayers_at_once_of_which_one_dies(yard: Graveyard, findings: list[Finding], seed: int) -> None:
    numbers = await yard.bury(2 * PAIRS * PART)
    yard.mended.add("shop")
    dice = chance(seed)

    ended: list[Replayed] = []
    for _ in range(PAIRS):
        points = [None, dies(dice, within=PART)]
        dice.shuffle(points)
        passes = [yard.replay("shop", "--rate", "20", "--limit", str(PART), failpoint=point) for point in points]
        ended += await asyncio.gather(*passes)
    last = await yard.replay("shop")
    finding = await found(yard, "two replayers at once, one of them SIGKILL", Counter(numbers), seed=seed)
    findings.append(finding)

    deaths = sum(one.was_killed for one in ended)
    assert any("somebody else is replaying" in one.err for one in ended)
    assert last.code == 0, last.err
    assert finding.held
    assert finding.duplicates <= deaths * WINDOW


async def test_the_target_of_a_replay_is_gone_stopped_and_full(
    yard: Graveyard, chaos_node: PrivateNode, findings: list[Finding], seed: int
) -> None:
    numbers = await yard.bury(4 * PART)
    shop, commands = yard.services["shop"], yard.operator.names.queue("shop", "commands")
    dice = chance(seed)

    await shop.stop()
    async with yard.channel() as channel:
        await channel.queue_delete(commands)
    gone = await yard.replay("shop", "--stop-after", "3")
    kept = await yard.depth("shop", "dead")
    yard.mended.add("shop")
    await shop.start()
    await shop.stop()
    some = dice.randint(1, PART)
    stopped = await yard.replay("shop", "--limit", str(some))
    waiting = await yard.depth("shop", "commands")
    policy = json.dumps({"max-length": waiting + dice.randint(1, PART), "overflow": "reject-publish"})
    await ctl(chaos_node, "set_policy", "--apply-to", "queues", "full", f"^{commands}$", policy)
    try:
        full = await yard.replay("shop", "--stop-after", "4")
    finally:
        await ctl(chaos_node, "clear_policy", "full")
    killed = await yard.replay("shop", failpoint=f"{Step.AFTER_REPLAY}:{dice.randint(1, PART)}")
    await shop.start()
    last = await yard.replay("shop")
    finding = await found(yard, "replay to a queue that is gone, stopped, full", Counter(numbers), seed=seed)
    findings.append(finding)

    assert (gone.code, kept) == (1, len(numbers)), gone.err
    assert "there is no queue" in gone.err
    assert (stopped.code, waiting) == (0, some), stopped.err
    assert full.code == 1
    assert "4 failures in a row" in full.err
    assert killed.was_killed, killed.err
    assert last.code == 0, last.err
    assert finding.held
    assert finding.duplicates <= WINDOW


async def test_an_event_goes_back_to_the_subscriber_that_failed_and_to_no_other(
    yard: Graveyard, findings: list[Finding], seed: int
) -> None:
    yard.mended.add("mail")
    for number in range(EVENTS):
        await yard.users.publish(Moved(number=number))
    await yard.until_dead("shop", EVENTS)
    await yard.until_dead("billing", EVENTS)
    await yard.settled("mail")
    yard.mended.add("shop")
    dice = chance(seed)

    deaths = 0
    for _ in range(DEATHS):
        deaths += (await yard.replay("shop", failpoint=dies(dice, within=EVENTS // DEATHS))).was_killed
    last = await yard.replay("shop")
    await yard.settled()
    others = (yard.runs["billing"], yard.runs["mail"], await yard.depth("billing", "dead"))
    yard.mended.add("billing")
    other = await yard.replay("billing")
    subscribers = ("shop", "billing", "mail")
    fault = f"replay of events with 3 subscribers, replayer SIGKILL {DEATHS} times"
    finding = await found(yard, fault, Counter(range(EVENTS)), seed=seed, services=subscribers)
    findings.append(finding)

    assert deaths
    # One that dies when its pass is over has taken them all: there may be nothing left.
    assert last.code in (0, 5), last.err
    assert other.code == 0, other.err
    assert others == (EVENTS, EVENTS, EVENTS), "no replay reached another subscriber"
    assert finding.held
    assert finding.duplicates <= deaths * WINDOW


async def test_what_is_done_is_replayed_again(yard: Graveyard, findings: list[Finding], seed: int) -> None:
    numbers = await yard.bury(EVENTS)
    again = chance(seed).sample(await bodies(yard), PART)
    yard.mended.add("shop")
    first = await yard.replay("shop")
    await yard.settled()

    for body in again:
        await yard.put_back(body)
    await yard.until_dead("shop", PART)
    second = await yard.replay("shop")
    await eventually(partial(is_refused, yard, PART), 60.0, what="what is done is refused")
    finding = await found(yard, "replay of messages that are done", Counter(numbers), seed=seed)
    findings.append(finding)

    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert finding.held
    assert finding.duplicates == PART


async def is_refused(yard: Graveyard, count: int) -> bool:
    return await yard.depth("shop", "refused") == count


async def bodies(yard: Graveyard) -> list[bytes]:
    """Return the bytes of all dead letters of the shop, which stay."""
    seen: list[bytes] = []
    count = await yard.depth("shop", "dead")
    queue = yard.operator.names.queue("shop", "dead")
    subscription = await yard.operator.transport.consume(
        queue, lambda delivery: seen.append(delivery.body), prefetch=count
    )
    await eventually(lambda: len(seen) == count, 60.0, what="all dead letters")
    await subscription.release()
    return seen


async def ctl(node: PrivateNode, *arguments: str) -> None:
    await asyncio.to_thread(node.ctl, *arguments, timeout_s=CTL_TIMEOUT_S)
