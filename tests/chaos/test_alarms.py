"""The broker raises an alarm: publishers wait and end by their deadline, consumers go on, whoever stops can stop."""

import asyncio
import signal
import time
from uuid import UUID

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import Outcome, What, read_history
from tests.chaos.ledger import Did
from tests.chaos.load import CALL_TIMEOUT_S
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

ALARM_S = 30.0
# Seconds from the end of an alarm that a call may use up, and a little more: such a call may still succeed.
TAIL_S = 8.0
# Handlers that begin before an alarm and end while it lasts.
BEGUN = 6
STALL_S = 10.0
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


@pytest.mark.postgres
async def test_consumers_go_on_during_an_alarm(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig, (begin, end) = postgres_rig, ALARMS["memory"]
    await rig.start("witness")
    await rig.start(count=2)
    # Nothing that fails: what must be published before it is acknowledged waits for the end of the alarm.
    await rig.load(flaky=0.0, mix={What.APPLY: 1})
    await rig.load(limit=BEGUN, rate=1_000, stall_s=STALL_S, mix={What.STALL: 1})
    await eventually(lambda: len(stalls(rig)) == BEGUN, CALL_TIMEOUT_S, what="the handlers have begun")

    await ctl(rig, *begin)
    try:
        before = (await rig.ledger.counts())[Did.APPLIED]
        await asyncio.sleep(ALARM_S)
        during = (await rig.ledger.counts())[Did.APPLIED]
        await rig.settled("chaos")
    finally:
        await ctl(rig, *end)
    await rig.recovered()
    finding, judgement = await rig.judged(f"memory alarm {ALARM_S:.0f} s over handlers of {STALL_S:.0f} s (PostgreSQL)")
    findings.append(finding)

    assert stalls(rig).isdisjoint(before)
    assert stalls(rig) <= set(during), (
        "what had been delivered is done, and acknowledged, while nothing can be published"
    )
    assert judgement.problems == {}
    assert finding.held


def stalls(rig: Rig) -> set[UUID]:
    """Return the commands that take long and are confirmed."""
    history = read_history(rig.history_file).items()
    return {op_id for op_id, call in history if call.what is What.STALL and call.outcome is Outcome.CONFIRMED}


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
