"""The census: what it calls more, and that a load without any fault leaves workers with what they held before it."""

import asyncio

import pytest

from tests.chaos.census import Census, grown
from tests.chaos.findings import Finding
from tests.chaos.rig import Rig

pytestmark = pytest.mark.timeout(600)

IDLE: Census = {("chaos", "channels"): 7.0, ("chaos", "tasks"): 20.0, ("chaos", "sockets"): 5.0}


@pytest.mark.smoke
def test_the_same_again_is_no_growth() -> None:
    assert grown(IDLE, IDLE) == ()
    assert grown(IDLE, {**IDLE, ("chaos", "sockets"): 9.0}, pool=4) == ()
    assert grown(IDLE, dict.fromkeys(IDLE, 0.0)) == ()


@pytest.mark.smoke
def test_what_is_more_than_allowed_is_named() -> None:
    more = {("chaos", "channels"): 7.5, ("chaos", "tasks"): 1_000.0}

    assert grown(IDLE, more) == ("chaos: 7.5 channels, 7 before", "chaos: 1000 tasks, 20 before")


@pytest.mark.smoke
def test_services_that_began_later_are_not_compared() -> None:
    assert grown(IDLE, {("witness", "tasks"): 1_000.0}) == ()


@pytest.mark.broker
async def test_a_load_alone_leaves_nothing_behind(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(fire_s)
    await rig.recovered()
    finding, judgement = await rig.judged("none, for comparison")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.leaked == ()
    assert finding.held
