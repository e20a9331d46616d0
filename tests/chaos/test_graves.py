"""The dead letters of a service under fire: whoever reads them dies again and again, and they stay."""

import asyncio
import time
from typing import Final

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.programs import Program
from tests.chaos.reader import HOLDS
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

DEATHS: Final = 30
# Of 30 deaths three at a time: a process needs a second or two to begin.
AT_ONCE: Final = 3
PREFETCH: Final = 20
BEGIN_S: Final = 60.0
MIX: Final = {What.APPLY: 4, What.SPOIL: 4}


async def test_the_reader_of_dead_letters_is_killed_while_it_holds_some(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(mix=MIX)
    await until_dead(rig, AT_ONCE * PREFETCH)

    held = []
    for number in range(DEATHS // AT_ONCE):
        held += await asyncio.gather(*(one_reader(rig, number * AT_ONCE + at) for at in range(AT_ONCE)))
    await rig.recovered()
    finding, judgement = await rig.judged(f"reader of dead letters SIGKILL while it holds some, {DEATHS} times")
    findings.append(finding)

    assert len(held) == DEATHS
    assert min(held) > 0
    assert judgement.problems == {}
    assert finding.held


async def one_reader(rig: Rig, number: int) -> int:
    """Kill a reader once it holds something; returns how much that was at least."""
    queue = rig.operator.names.queue("chaos", "dead")
    arguments = ["tests.chaos.reader", rig.node.url, queue, "--prefetch", str(PREFETCH)]
    environment = {"PATH": "/usr/bin:/bin"}
    reader = Program(arguments, environment=environment, log_file=rig.folder / f"reader-{number}.log")
    try:
        deadline_s = time.monotonic() + BEGIN_S
        while not (held := reader.log_file.read_text().count(HOLDS)):
            assert reader.is_running, reader.last_words()
            assert time.monotonic() < deadline_s, "there is nothing to read"
            await asyncio.sleep(0.05)
        await asyncio.sleep(rig.chance.uniform(0, 0.5))
        return held
    finally:
        await asyncio.to_thread(reader.kill)


async def until_dead(rig: Rig, count: int) -> None:
    deadline_s = time.monotonic() + BEGIN_S
    while True:
        depth = await rig.operator.transport.depth(rig.operator.names.queue("chaos", "dead"))
        if depth is not None and depth.messages >= count:
            return
        assert time.monotonic() < deadline_s, f"fewer than {count} are dead"
        await asyncio.sleep(0.25)
