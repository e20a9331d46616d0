"""Money moves between accounts while workers, their relays, the broker and the database are killed: the sum stays."""

import asyncio
from typing import Final

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import What
from tests.chaos.ledger import Did
from tests.chaos.rig import Rig
from tests.support.broker import start_node
from tests.support.postgres import PrivatePostgres

pytestmark = [pytest.mark.broker, pytest.mark.postgres, pytest.mark.timeout(1_200)]

TRANSFERS: Final = 10_000
ACCOUNTS: Final = 50
CENTS: Final = 100_000
LOAD_TIMEOUT_S: Final = 600.0


async def test_ten_thousand_transfers_keep_the_sum(
    fragile_rig: Rig, private_postgres: PrivatePostgres, findings: list[Finding]
) -> None:
    rig = fragile_rig
    await rig.ledger.open_accounts(ACCOUNTS, cents=CENTS)
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(rate=150.0, limit=TRANSFERS, accounts=ACCOUNTS, mix={What.TRANSFER: 1})

    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(kill_at_random(rig, private_postgres, is_over))
        try:
            await rig.load_ended(LOAD_TIMEOUT_S)
        finally:
            is_over.set()
    await rig.recovered()
    finding, judgement = await rig.judged("10 000 transfers under kills of everything")
    findings.append(finding)
    moved = (await rig.ledger.counts())[Did.TRANSFERRED]

    assert await rig.ledger.balance() == ACCOUNTS * CENTS
    assert judgement.problems == {}
    assert finding.held
    assert judgement.messages == TRANSFERS
    assert set(moved.values()) == {1}
    assert len(moved) >= judgement.confirmed


async def kill_at_random(rig: Rig, postgres: PrivatePostgres, is_over: asyncio.Event) -> None:
    """Kill until it is over, and start again: mostly workers, now and then the broker or the database."""
    while not is_over.is_set():
        await asyncio.sleep(rig.chance.uniform(1, 3))
        what = rig.chance.choices(("worker", "broker", "postgres"), (8, 1, 1))[0]
        if what == "worker":
            victim = rig.chance.choice(rig.workers)
            await rig.kill(victim)
            await rig.start(victim.service)
        elif what == "broker":
            await asyncio.to_thread(rig.node.kill)
            await asyncio.to_thread(start_node, rig.node)
        else:
            await asyncio.to_thread(postgres.stop)
            await asyncio.to_thread(postgres.start)
