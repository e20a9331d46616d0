"""The way to the broker fails: for workers and callers alike, as connections do, in either direction."""

import asyncio
from collections.abc import Callable

import pytest

from tests.chaos.findings import Finding
from tests.chaos.rig import Rig
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

DARK_S = 20.0
LONG_DARK_S = 60.0
CUTS = 8


def hold_both(proxy: TcpProxy) -> None:
    proxy.hold()
    proxy.hold_words()


async def test_connections_are_reset(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    for _ in range(5):
        await asyncio.sleep(rig.chance.uniform(0, fire_s / 5))
        rig.proxy.reset()
    await rig.recovered()
    finding, judgement = await rig.judged("links RST, 5 times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_connections_are_cut_after_publish_before_confirm(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    for _ in range(CUTS):
        await asyncio.sleep(rig.chance.uniform(1, 3))
        # The broker has what was published meanwhile, and nobody has heard that it has.
        rig.proxy.hold()
        await asyncio.sleep(rig.chance.uniform(0.2, 1.0))
        rig.proxy.reset()
        rig.proxy.release()
    await rig.recovered()
    finding, judgement = await rig.judged(f"links cut after publish, before confirm, {CUTS} times")
    findings.append(finding)

    assert finding.duplicates, "what was published twice came twice, and was dropped"
    assert judgement.problems == {}
    assert finding.held


@pytest.mark.parametrize(
    ("fault", "strike", "dark_s"),
    [
        pytest.param("blackhole", hold_both, LONG_DARK_S, id="blackhole"),
        pytest.param("half-open: the broker is not heard", TcpProxy.hold, DARK_S, id="deaf"),
        pytest.param("half-open: the broker does not hear", TcpProxy.hold_words, DARK_S, id="mute"),
    ],
)
async def test_the_link_goes_dark(
    rig: Rig, fault: str, strike: Callable[[TcpProxy], None], dark_s: float, findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    strike(rig.proxy)
    await asyncio.sleep(dark_s)
    rig.proxy.release()
    await rig.recovered()
    finding, judgement = await rig.judged(f"links {fault}, {dark_s:.0f} s")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
