"""The broker is killed, stopped, closes connections, loses a queue, and has no room for the dead."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import Outcome, What, read_history
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S, start_node

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


async def ctl(rig: Rig, *arguments: str) -> str:
    return await asyncio.to_thread(rig.node.ctl, *arguments, timeout_s=CTL_TIMEOUT_S)


async def kill_and_start(rig: Rig) -> None:
    await asyncio.to_thread(rig.node.kill)
    await asyncio.sleep(rig.chance.uniform(0, 3))
    await asyncio.to_thread(start_node, rig.node)


async def stop_and_start_app(rig: Rig) -> None:
    await ctl(rig, "stop_app")
    await asyncio.sleep(rig.chance.uniform(0, 3))
    await ctl(rig, "start_app")


async def close_connections(rig: Rig) -> None:
    for _ in range(3):
        await ctl(rig, "close_all_connections", "chaos")
        await asyncio.sleep(rig.chance.uniform(0, 4))


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param("broker SIGKILL and restart", kill_and_start, marks=pytest.mark.smoke, id="kill"),
        pytest.param("broker stop_app and start_app", stop_and_start_app, id="stop_app"),
        pytest.param("broker closes all connections, 3 times", close_connections, id="close"),
    ],
)
async def test_the_broker_goes_away(
    rig: Rig, fault: str, strike: Callable[[Rig], Awaitable[None]], findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(rig.chance.uniform(2, 4))

    await strike(rig)
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_a_queue_is_deleted_under_its_consumers(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(fire_s / 4)
    await rig.drained()

    for service, part in (("chaos", "commands"), ("witness", "events"), ("chaos", "requests")):
        await ctl(rig, "delete_queue", rig.operator.names.queue(service, part))
    await rig.recovered()
    await rig.load()
    await asyncio.sleep(fire_s / 4)
    finding, judgement = await rig.judged("queues deleted under their consumers")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_there_is_no_room_for_the_dead(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    queue = rig.operator.names.queue("chaos", "dead")
    policy = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    await ctl(rig, "set_policy", "--apply-to", "queues", "full", f"^{queue}$", policy)
    try:
        await rig.load(mix={What.APPLY: 20, What.SPOIL: 2})
        await asyncio.sleep(fire_s)
        held = await rig.unsettled()
        (letters, history) = await rig.letters(), read_history(rig.history_file)
    finally:
        await ctl(rig, "clear_policy", "full")
    # 3.10 lifts the refusal from new channels only; those that were told go on refusing until the queue shrinks.
    await ctl(rig, "close_all_connections", "chaos")
    await rig.recovered()
    finding, judgement = await rig.judged("dead queue full")
    findings.append(finding)

    spoilt = [call for call in history.values() if call.what is What.SPOIL and call.outcome is Outcome.CONFIRMED]
    assert held >= 1, "what cannot be buried is not acknowledged"
    assert len(letters) < len(spoilt)
    assert judgement.problems == {}
    assert finding.held
