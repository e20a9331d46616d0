"""Order per key under fire: entries of many accounts, in partitions, while workers, links and the broker fail (I8)."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.rig import Rig
from tests.support.broker import start_node

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

ACCOUNTS = 40
KILLS = 5


async def kill_workers(rig: Rig) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(rig.chance.uniform(1, 3))
        await rig.kill(rig.chance.choice(rig.of("books")))
        await rig.start("books")


async def stop_workers(rig: Rig) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(rig.chance.uniform(1, 3))
        victim = rig.of("books")[0]
        victim.signal(signal.SIGTERM)
        assert await rig.died(victim) == 0
        await rig.start("books")


async def kill_broker(rig: Rig) -> None:
    await asyncio.to_thread(rig.node.kill)
    await asyncio.sleep(rig.chance.uniform(0, 3))
    await asyncio.to_thread(start_node, rig.node)


async def reset_links(rig: Rig) -> None:
    for _ in range(KILLS):
        rig.proxy.reset()
        await asyncio.sleep(rig.chance.uniform(0, 4))


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param(f"order per key: worker SIGKILL, {KILLS} times", kill_workers, id="kill"),
        pytest.param(f"order per key: worker SIGTERM, {KILLS} times", stop_workers, id="stop"),
        pytest.param("order per key: broker SIGKILL and restart", kill_broker, id="broker"),
        pytest.param(f"order per key: links RST, {KILLS} times", reset_links, id="reset"),
    ],
)
async def test_entries_of_an_account_keep_their_order(
    rig: Rig, fault: str, strike: Callable[[Rig], Awaitable[None]], findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start()
    await rig.start("books", count=3)
    await rig.load(rate=60.0, accounts=ACCOUNTS, flaky=0.05, mix={What.ENTER: 10, What.APPLY: 1}, through_proxy=True)
    await asyncio.sleep(2)

    await strike(rig)
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)
    entries = await rig.ledger.entries()

    assert judgement.problems == {}
    assert finding.held
    assert len(entries) > ACCOUNTS / 2
    assert sum(map(len, entries.values())) > finding.messages / 2
