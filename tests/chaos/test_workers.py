"""Workers are killed, at any time and at the worst, frozen, and asked to stop, while work flows."""

import asyncio
import signal
import time

import pytest

from messaging.runtime.failpoint import Step
from tests.chaos.conftest import IS_SMOKE
from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

FROZEN_S = 40.0
KILLS = 3 if IS_SMOKE else 60
# What waits at the end must be done in a minute, also by a machine that is busy with starting workers.
KILLED_RATE = 15.0
DEATHS = 3
# Without requests: whose answer was kept is answered again, and is no duplicate that is dropped.
COMMANDS = {What.APPLY: 20, What.SPOIL: 2}


@pytest.mark.smoke
# A busy machine takes ten minutes to start so many workers.
@pytest.mark.timeout(1_800)
async def test_killing_workers_every_few_seconds(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=3)
    await rig.load(rate=KILLED_RATE)

    for _ in range(KILLS):
        victim = rig.chance.choice(rig.workers)
        await rig.kill(victim)
        # Who dies before it has begun shows nothing, and on a busy machine nobody would ever work.
        await asyncio.gather(rig.start(victim.service), asyncio.sleep(rig.chance.uniform(1, 3)))
    await rig.recovered()
    finding, judgement = await rig.judged(f"worker SIGKILL every 1-3 s, {KILLS} times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


@pytest.mark.parametrize(
    "step",
    [
        Step.BEFORE_COMMIT,
        pytest.param(Step.AFTER_COMMIT, marks=pytest.mark.smoke),
        Step.AFTER_DEAD_LETTER,
        Step.AFTER_MARK,
        Step.AFTER_RUNG,
    ],
)
async def test_a_worker_dies_between_two_acts(rig: Rig, step: Step, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start()
    await rig.load(mix=COMMANDS)

    await die_at(rig, step)
    await rig.recovered()
    finding, judgement = await rig.judged(f"SIGKILL at {step}")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
    assert finding.duplicates >= DEATHS or step is not Step.AFTER_COMMIT, "what had run came back and was dropped"


@pytest.mark.parametrize("step", [Step.BEFORE_COMMIT, Step.AFTER_COMMIT])
async def test_a_worker_whose_deliveries_share_transactions_dies(
    grouped_rig: Rig, step: Step, findings: list[Finding]
) -> None:
    rig = grouped_rig
    await rig.start("witness")
    await rig.start()
    await rig.load(mix=COMMANDS)

    await die_at(rig, step)
    await rig.recovered()
    finding, judgement = await rig.judged(f"10 deliveries per transaction, SIGKILL at {step}")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
    assert finding.duplicates >= DEATHS or step is not Step.AFTER_COMMIT, "what had run came back and was dropped"


@pytest.mark.postgres
@pytest.mark.parametrize("step", [Step.AFTER_CLAIM, Step.AFTER_RELAY])
async def test_one_of_two_relays_dies_between_two_acts(postgres_rig: Rig, step: Step, findings: list[Finding]) -> None:
    rig = postgres_rig
    await rig.start("witness")
    await rig.start()
    await rig.load()

    await die_at(rig, step)
    await rig.recovered()
    finding, judgement = await rig.judged(f"two relays, SIGKILL at {step} (PostgreSQL)")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


@pytest.mark.postgres
async def test_a_worker_is_frozen_and_wakes_up_late(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig = postgres_rig
    await rig.start("witness")
    victim, _ = await rig.start(count=2)
    await rig.load()

    victim.signal(signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    victim.signal(signal.SIGCONT)
    await rig.recovered()
    finding, judgement = await rig.judged(f"worker SIGSTOP {FROZEN_S:.0f} s, SIGCONT (PostgreSQL)")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
    assert victim.is_running


@pytest.mark.smoke
async def test_stopping_in_order_leaves_nothing_behind(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    codes, until_s = [], time.monotonic() + fire_s
    while time.monotonic() < until_s:
        await asyncio.sleep(rig.chance.uniform(0.5, 1.5))
        victim = rig.of("chaos")[0]
        victim.signal(signal.SIGTERM)
        codes.append(await rig.died(victim))
        await rig.start()
    for worker in rig.of("chaos"):
        worker.signal(signal.SIGTERM)
    codes += [await rig.died(worker) for worker in rig.of("chaos")]
    await rig.settled("chaos")
    await rig.start(count=2)
    await rig.recovered()
    finding, judgement = await rig.judged("SIGTERM under load")
    findings.append(finding)

    assert set(codes) == {0}
    assert judgement.problems == {}
    assert finding.held
    assert finding.duplicates <= judgement.repeated, "I10: nothing that had run came back"


async def die_at(rig: Rig, step: Step) -> None:
    """Let workers die at a step, some by some, each after it went well a few times."""
    for _ in range(DEATHS):
        (victim,) = await rig.start(MESSAGING_FAILPOINT=f"{step}:{rig.chance.randint(1, 5)}")
        assert await rig.died(victim) == -signal.SIGKILL
