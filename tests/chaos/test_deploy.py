"""A rolling deploy under load: old and new replicas share the queues, callers send what old ones do not know."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from messaging.cli.broker_node import PrivateNode
from tests.chaos.aside import set_aside
from tests.chaos.findings import Finding
from tests.chaos.history import Outcome, What, read_history
from tests.chaos.opening import open_rig
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

REPLICAS: Final = 3
# The deploy must take less than all of it, or what met old replicas only is buried (docs/evolution.md).
LADDER: Final = "1,5,30,30,30"
MIX: Final = {What.APPLY: 15, What.NEWER: 8, What.ASK: 3, What.SPOIL: 1, What.EXTRA: 8, What.ASK_EXTRA: 3}
MIXED_S: Final = 5.0


@pytest.fixture
async def ladder_rig(chaos_node: PrivateNode, run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on SQLite whose workers retry for longer."""
    async with open_rig(chaos_node, run_folder, seed=seed, CHAOS_LADDER=LADDER) as opened:
        yield opened


async def test_callers_use_what_old_replicas_do_not_know(ladder_rig: Rig, findings: list[Finding]) -> None:
    rig = ladder_rig
    await rig.start("witness")
    old = await rig.start(count=REPLICAS)
    # Whoever knows a message binds it: before the first new replica callers are told that nobody does.
    await rig.start(CHAOS_VERSION="2")
    await rig.load(mix=MIX)
    await asyncio.sleep(rig.chance.uniform(1, MIXED_S))

    codes = []
    rig.chance.shuffle(old)
    for victim in old:
        victim.signal(signal.SIGTERM)
        codes.append(await rig.died(victim))
        await rig.start(CHAOS_VERSION="2")
    await rig.recovered()
    finding, judgement = await rig.judged("rolling deploy: callers are ahead of old replicas")
    findings.append(finding)

    history = read_history(rig.history_file).values()
    done = Counter(call.what for call in history if call.outcome is Outcome.CONFIRMED)
    unknown = {
        event.get("message_name")
        for worker in rig.gone
        for event in worker.events()
        if event["event"] == "delivery.retried" and "Unknown" in str(event.get("error"))
    }
    assert set(codes) == {0}
    assert unknown >= {"chaos.extra"}, "old replicas got what they did not know"
    assert min(done[what] for what in MIX) > 0, done
    assert judgement.problems == {}
    assert await set_aside(rig) == {}, "what one replica cannot do another can"
    assert finding.held
