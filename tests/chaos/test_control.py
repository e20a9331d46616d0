"""The negative control: without a durable inbox the same kills apply effects twice, and the oracle says so.

If this test fails, the oracle is blind or the kills miss, and nothing that the other runs show is worth anything.
"""

import asyncio

import pytest

from messaging.runtime.failpoint import Step
from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KILLS = 5


@pytest.mark.smoke
async def test_without_the_durable_inbox_kills_apply_effects_twice(
    memory_rig: Rig, fire_s: float, findings: list[Finding]
) -> None:
    rig = memory_rig
    await rig.start("witness")
    await rig.start(count=2)
    # Nothing that fails by itself: without a transaction that would be done twice without any kill.
    await rig.load(flaky=0.0, mix={What.APPLY: 1})

    for number in range(KILLS):
        (victim,) = await rig.start(MESSAGING_FAILPOINT=f"{Step.AFTER_COMMIT}:{rig.chance.randint(5, 30)}")
        await rig.died(victim)
        if number == 0:
            # One more by chance: between commit and acknowledgement there is only a moment, so it may hit nothing.
            await rig.kill(rig.of("chaos")[0])
            await rig.start()
    await asyncio.sleep(fire_s / 4)
    await rig.recovered()
    finding, judgement = await rig.judged("negative control: inbox in memory", expect=("twice",))
    findings.append(finding)

    assert len(judgement.twice) >= KILLS
    assert set(judgement.problems) == {"twice"}
