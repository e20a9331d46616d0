"""Handlers take too long: for the broker's patience, for the heartbeat, for whoever wants to stop the process."""

import asyncio
import signal
import time

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

BROKER_PATIENCE_S = 5
SLOW_S = 20.0
BLOCKED_S = 30.0


async def set_broker(rig: Rig, name: str, value: str) -> None:
    words = ("eval", f"application:set_env(rabbit, {name}, {value}).")
    await asyncio.to_thread(rig.node.ctl, *words, timeout_s=CTL_TIMEOUT_S)


@pytest.mark.postgres
async def test_a_handler_overruns_the_brokers_patience(
    postgres_rig: Rig, fire_s: float, findings: list[Finding]
) -> None:
    rig = postgres_rig
    await set_broker(rig, "consumer_timeout", str(BROKER_PATIENCE_S * 1_000))
    # How often the broker looks; a minute by default.
    await set_broker(rig, "channel_tick_interval", "1000")
    try:
        await rig.start("witness")
        await rig.start(count=2)
        await rig.load()
        await rig.load(limit=2, stall_s=SLOW_S, mix={What.STALL: 1})
        await asyncio.sleep(fire_s + SLOW_S)
    finally:
        await set_broker(rig, "consumer_timeout", "1800000")
        await set_broker(rig, "channel_tick_interval", "60000")
    await rig.replace_dead()
    closed = rig.told("chaos", "consumer.lost")
    await rig.recovered()
    finding, judgement = await rig.judged(f"consumer timeout {BROKER_PATIENCE_S} s, handlers of {SLOW_S:.0f} s")
    findings.append(finding)

    assert closed, "the broker closed channels of consumers"
    assert judgement.problems == {}
    assert finding.held


@pytest.mark.postgres
async def test_a_handler_blocks_the_event_loop(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig = postgres_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    await rig.load(limit=1, stall_s=BLOCKED_S, mix={What.BLOCK: 1})
    await asyncio.sleep(BLOCKED_S + 5)
    await rig.recovered()
    finding, judgement = await rig.judged(f"event loop blocked {BLOCKED_S:.0f} s (PostgreSQL)")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


@pytest.mark.postgres
async def test_a_second_signal_ends_a_drain_at_once(postgres_rig: Rig, findings: list[Finding]) -> None:
    rig = postgres_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await rig.load(limit=4, rate=1_000, stall_s=SLOW_S, mix={What.STALL: 1})
    await asyncio.sleep(2)

    codes, took_s = [], []
    for worker in rig.of("chaos"):
        worker.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        assert worker.is_running, "it drains: a handler has not returned"
        began_s = time.monotonic()
        worker.signal(signal.SIGTERM)
        codes.append(await rig.died(worker))
        took_s.append(time.monotonic() - began_s)
    await rig.start(count=2)
    await rig.recovered()
    finding, judgement = await rig.judged("a second SIGTERM during a drain")
    findings.append(finding)

    assert set(codes) == {-signal.SIGTERM}
    assert max(took_s) < SLOW_S / 2
    assert judgement.problems == {}
    assert finding.held
