"""Requests under fire: the queue of answers is deleted, whoever asks dies, whoever answers dies before he does."""

import asyncio
import signal

import pytest

from messaging.runtime.failpoint import Step
from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

ONLY_ASK = {What.ASK: 1}
DEATHS = 3


async def test_the_answers_queue_is_deleted(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(mix=ONLY_ASK)
    await asyncio.sleep(2)

    for queue in await reply_queues(rig):
        await asyncio.to_thread(rig.node.ctl, "delete_queue", queue, timeout_s=CTL_TIMEOUT_S)
    await rig.recovered()
    await asyncio.sleep(fire_s / 4)
    finding, judgement = await rig.judged("queue of replies deleted")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_whoever_asks_dies(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    for _ in range(DEATHS):
        await rig.load(rate=100.0, mix=ONLY_ASK)
        await asyncio.sleep(rig.chance.uniform(1, 2))
        await rig.kill_loads()
    await rig.load(mix=ONLY_ASK)
    await rig.recovered()
    finding, judgement = await rig.judged(f"requester SIGKILL, {DEATHS} times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
    assert all(worker.is_running for worker in rig.workers)


async def test_whoever_answers_dies_after_the_effect(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start()
    await rig.load(mix=ONLY_ASK)

    for _ in range(DEATHS):
        (victim,) = await rig.start(MESSAGING_FAILPOINT=f"{Step.AFTER_COMMIT}:{rig.chance.randint(1, 5)}")
        assert await rig.died(victim) == -signal.SIGKILL
    await rig.recovered()
    finding, judgement = await rig.judged("SIGKILL of the answerer after the effect, before the reply")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def reply_queues(rig: Rig) -> list[str]:
    listed = await asyncio.to_thread(rig.node.ctl, "list_queues", "name", timeout_s=CTL_TIMEOUT_S)
    prefix = f"{rig.operator.names.namespace}.load.replies."
    return [line.strip() for line in listed.splitlines() if line.strip().startswith(prefix)]
