"""Keys of senders and receivers go through all states while messages flow: nothing is lost, nothing is refused."""

from pathlib import Path

import pytest

from messaging.security.rotation import Step
from tests.support.broker import Broker
from tests.support.drill import Drill

MESSAGES = 5_000
STEPS = (Step.PUBLISH, Step.ACTIVATE, Step.RETIRE, Step.DESTROY)


async def rotate_all(drill: Drill) -> None:
    """Take every step for every identity, each while a share of the messages flows."""
    share = MESSAGES // (len(STEPS) * len(drill.identities))
    for expected in STEPS:
        for identity in drill.identities:
            assert await drill.step_while_flowing(identity, share) is expected
    await drill.flow(max(0, MESSAGES - len(drill.sent)))


async def assert_nothing_is_lost(drill: Drill) -> None:
    await drill.quiet()
    assert len(drill.sent) >= MESSAGES
    assert drill.handled.keys() == drill.sent
    assert await drill.refused() == {}
    assert len(drill.steps) == len(STEPS) * len(drill.identities)


async def test_over_the_embedded_broker(tmp_path: Path) -> None:
    async with Drill(tmp_path, "memory://") as drill:
        before = {name: keyring.signing[0].kid for name, keyring in drill.trusting.keyrings.items()}

        await rotate_all(drill)

        await assert_nothing_is_lost(drill)
        assert set(drill.handled.values()) == {1}
        after = {name: [key.kid for key in keyring.signing] for name, keyring in drill.trusting.keyrings.items()}
        assert all(len(kids) == 1 and kids[0] != before[name] for name, kids in after.items())


@pytest.mark.broker
@pytest.mark.timeout(300)
async def test_over_a_real_broker(tmp_path: Path, broker: Broker) -> None:
    async with Drill(tmp_path, broker.url) as drill:
        await rotate_all(drill)

        await assert_nothing_is_lost(drill)
