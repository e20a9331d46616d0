"""The way to the broker fails: for workers and callers alike, as connections do, in either direction."""

import asyncio
from collections.abc import Callable

import pytest

from tests.chaos.findings import Finding
from tests.chaos.rig import Rig
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

DARK_S = 20.0


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


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param("blackhole", hold_both, id="blackhole"),
        pytest.param("half-open: the broker is not heard", TcpProxy.hold, id="deaf"),
        pytest.param("half-open: the broker does not hear", TcpProxy.hold_words, id="mute"),
    ],
)
async def test_the_link_goes_dark(
    rig: Rig, fault: str, strike: Callable[[TcpProxy], None], findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    strike(rig.proxy)
    await asyncio.sleep(DARK_S)
    rig.proxy.release()
    await rig.recovered()
    finding, judgement = await rig.judged(f"links {fault}, {DARK_S:.0f} s")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held
