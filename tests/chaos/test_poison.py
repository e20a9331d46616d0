"""A message that kills whoever handles it: it is buried, once, and its neighbours are not."""

import asyncio
import time

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What, read_history
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PATIENCE_S = 300.0


async def test_a_poison_message_is_buried_and_its_neighbours_are_handled(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(rate=15.0)
    await rig.load(limit=1, mix={What.KILL: 1})

    deadline_s, deaths = time.monotonic() + PATIENCE_S, 0
    while not any(letter.error == "crash_loop" for letter in await rig.letters()):
        assert time.monotonic() < deadline_s, f"not buried after {deaths} deaths"
        deaths += await rig.replace_dead()
        await asyncio.sleep(0.2)
    await rig.replace_dead()
    await rig.recovered()
    finding, judgement = await rig.judged("poison message")
    findings.append(finding)

    poison = [call.op_id for call in read_history(rig.history_file).values() if call.what is What.KILL]
    graves = [letter for letter in await rig.letters() if letter.message_id in poison]
    assert [letter.error for letter in graves] == ["crash_loop"]
    # Ten deliveries, of which RabbitMQ 3.10 also counts those that were given back before they began.
    assert deaths >= 5
    assert judgement.problems == {}
    assert finding.held
