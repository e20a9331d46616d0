"""Three services hear an event and one of them always fails: its trouble reaches neither of the others (I6)."""

import asyncio
import time

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.ledger import Did
from tests.chaos.rig import Rig
from tests.chaos.worker import RETRY

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PATIENCE_S = 90.0


async def test_one_of_three_subscribers_always_fails(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start("bystander")
    await rig.start("skeptic")
    await rig.start()
    await rig.load(rate=10.0, flaky=0.0, mix={What.APPLY: 1})
    await asyncio.sleep(fire_s / 2)
    await rig.recovered()
    finding, judgement = await rig.judged("3 subscribers, one always fails")
    counts = await rig.ledger.counts()
    dead = await rig.operator.dead_letters.list("skeptic")
    deadline_s = time.monotonic() + PATIENCE_S
    while len(dead) < len(counts[Did.HEARD]) and time.monotonic() < deadline_s:
        await asyncio.sleep(1)
        dead = await rig.operator.dead_letters.list("skeptic")
    buried = [letter.message_id for letter in dead]
    findings.append(finding)

    retried = {service: rig.told(service, "delivery.retried") for service in ("witness", "bystander", "skeptic")}
    assert judgement.problems == {}
    assert finding.held
    assert set(counts[Did.OVERHEARD]) == set(counts[Did.HEARD])
    assert len(buried) == len(set(buried)) == len(counts[Did.HEARD]), "each failure is dead, once"
    assert finding.duplicates <= judgement.repeated, "no retry reached a queue that had taken its copy"
    assert retried == {"witness": 0, "bystander": 0, "skeptic": len(RETRY.delays_s) * len(buried)}
