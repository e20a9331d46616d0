"""The database breaks under the workers, in the middle of commits, or is away for long."""

import asyncio

import pytest

from tests.chaos.findings import Finding
from tests.chaos.rig import Rig
from tests.support.postgres import PrivatePostgres

pytestmark = [pytest.mark.broker, pytest.mark.postgres, pytest.mark.timeout(600)]

RESTARTS = 3
AWAY_S = 120.0
# Two minutes of work wait at the end, and must be done within another, by a busy machine too.
AWAY_RATE = 10.0


async def test_postgresql_restarts_under_load(
    fragile_rig: Rig, private_postgres: PrivatePostgres, findings: list[Finding]
) -> None:
    rig = fragile_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    for _ in range(RESTARTS):
        await asyncio.sleep(rig.chance.uniform(1, 3))
        await asyncio.to_thread(private_postgres.stop)
        await asyncio.sleep(rig.chance.uniform(0, 2))
        await asyncio.to_thread(private_postgres.start)
    await rig.recovered()
    finding, judgement = await rig.judged(f"PostgreSQL breaks and restarts, {RESTARTS} times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_postgresql_is_away_for_long(
    fragile_rig: Rig, private_postgres: PrivatePostgres, findings: list[Finding]
) -> None:
    rig = fragile_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(rate=AWAY_RATE)

    await asyncio.to_thread(private_postgres.stop)
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(private_postgres.start)
    await rig.recovered()
    finding, judgement = await rig.judged(f"PostgreSQL away for {AWAY_S:.0f} s")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
