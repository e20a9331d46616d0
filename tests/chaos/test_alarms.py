"""The broker raises an alarm: publishers wait and end by their deadline, consumers go on, whoever stops can stop."""

import asyncio
import signal
import time

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What, read_history
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

ALARM_S = 30.0
# Seconds from the end of an alarm that a call may use up, and a little more: such a call may still succeed.
TAIL_S = 8.0
ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.4")),
    "disk": (("set_disk_free_limit", "1000GB"), ("set_disk_free_limit", "50MB")),
}


async def ctl(rig: Rig, *arguments: str) -> None:
    await asyncio.to_thread(rig.node.ctl, *arguments, timeout_s=CTL_TIMEOUT_S)


@pytest.mark.parametrize("kind", sorted(ALARMS))
async def test_an_alarm_ends_calls_by_their_deadline(rig: Rig, kind: str, findings: list[Finding]) -> None:
    begin, end = ALARMS[kind]
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    await ctl(rig, *begin)
    began_s = time.time()
    await asyncio.sleep(ALARM_S)
    await ctl(rig, *end)
    ended_s = time.time()
    await rig.recovered()
    finding, judgement = await rig.judged(f"{kind} alarm {ALARM_S:.0f} s")
    findings.append(finding)

    history = read_history(rig.history_file).values()
    in_alarm = [call for call in history if began_s + 1 < call.began_s < ended_s - TAIL_S]
    assert in_alarm
    assert all(call.took_s > 1 for call in in_alarm if call.what is What.APPLY), "publishers were held up"
    assert judgement.problems == {}
    assert finding.held


async def test_workers_stop_and_start_during_an_alarm(rig: Rig, findings: list[Finding]) -> None:
    begin, end = ALARMS["memory"]
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    await ctl(rig, *begin)
    try:
        await asyncio.sleep(2)
        codes = []
        for worker in rig.of("chaos"):
            worker.signal(signal.SIGTERM)
            codes.append(await rig.died(worker))
        late = asyncio.create_task(rig.start(count=2))
        await asyncio.sleep(5)
    finally:
        await ctl(rig, *end)
    await late
    await rig.recovered()
    finding, judgement = await rig.judged("workers stop and start during a memory alarm")
    findings.append(finding)

    assert set(codes) == {0}, "an alarm keeps nobody from stopping in order"
    assert judgement.problems == {}
    assert finding.held
