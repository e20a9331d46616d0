"""From suite 1 to suite 2 while messages flow: nothing is lost, nothing is refused, nothing is sealed too early."""

from pathlib import Path

import pytest

from messaging.security.rotation import Step
from tests.support.suite_drill import SuiteDrill

SHARE = 160


@pytest.mark.timeout(300)
async def test_every_message_runs_once_in_every_step(tmp_path: Path) -> None:
    async with SuiteDrill(tmp_path, "memory://") as drill:
        for identity in drill.identities:
            await drill.add_suite_while_flowing(identity, SHARE)
        for identity in drill.identities:
            assert await drill.step_while_flowing(identity, SHARE) is Step.ACTIVATE
        before = set(drill.counting.suites)
        accepted = await drill.list_while_flowing((1, 2), SHARE)
        used = await drill.list_while_flowing((2, 1), SHARE)
        alone = await drill.list_while_flowing((2,), SHARE)
        retired = [await drill.step_while_flowing(identity, SHARE) for identity in drill.identities]

        await drill.quiet()
        assert drill.handled.keys() == drill.sent
        assert set(drill.handled.values()) == {1}
        assert await drill.refused() == {}
        assert before == set(accepted) == {1}
        assert set(used) == {1, 2}
        assert set(alone) == {2}
        assert set(retired) == {Step.RETIRE}
        assert drill.counting.suites.total() >= len(drill.sent)
