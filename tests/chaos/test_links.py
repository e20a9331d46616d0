"""The way to the broker fails: for workers and callers alike, as connections do, in either direction."""

import asyncio
from collections.abc import Callable

import pytest

from tests.chaos.findings import Finding
from tests.chaos.history import Outcome, read_history
from tests.chaos.rig import Rig
from tests.support.amqp_frames import Said
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

DARK_S = 20.0
LONG_DARK_S = 60.0
CUTS = 8
# A cut comes within the first so many confirms, deliveries or acknowledgements, and within so many seconds.
CUT_WITHIN = 60
CUT_WITHIN_S = 60.0
SLOW_S = 20.0
LATE_S = 0.5
BYTES_PER_S = 10_000


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


@pytest.mark.parametrize("said", Said, ids=[said.name.lower() for said in Said])
async def test_connections_are_cut_behind_a_confirm_a_delivery_an_acknowledgement(
    rig: Rig, said: Said, findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    for _ in range(CUTS):
        async with asyncio.timeout(CUT_WITHIN_S):
            await rig.proxy.cut_after(said, rig.chance.randint(1, CUT_WITHIN)).wait()
    await rig.recovered()
    finding, judgement = await rig.judged(f"links cut behind any {said.name.lower()}, {CUTS} times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param("the broker's side first", TcpProxy.end_answers, id="answers"),
        pytest.param("the clients' side first", TcpProxy.end_words, id="words"),
    ],
)
async def test_connections_are_half_closed(
    rig: Rig, fault: str, strike: Callable[[TcpProxy], None], findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)

    for _ in range(CUTS):
        await asyncio.sleep(rig.chance.uniform(1, 3))
        strike(rig.proxy)
    await rig.recovered()
    finding, judgement = await rig.judged(f"links half-closed, {fault}, {CUTS} times")
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param(f"{LATE_S * 1000:.0f} ms late each way", lambda proxy: proxy.delay(LATE_S), id="late"),
        pytest.param(f"of {BYTES_PER_S // 1000} kB a second", lambda proxy: proxy.throttle(BYTES_PER_S), id="narrow"),
    ],
)
async def test_the_link_is_slow(
    rig: Rig, fault: str, strike: Callable[[TcpProxy], None], findings: list[Finding]
) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(through_proxy=True)
    quick = [call.took_s for call in read_history(rig.history_file).values() if call.outcome is Outcome.CONFIRMED]

    strike(rig.proxy)
    await asyncio.sleep(SLOW_S)
    rig.proxy.release()
    await rig.recovered()
    finding, judgement = await rig.judged(f"links {fault}, {SLOW_S:.0f} s")
    findings.append(finding)

    slowest_s = max(call.took_s for call in read_history(rig.history_file).values())
    assert slowest_s > max(LATE_S, *quick), "the link was slow"
    assert judgement.problems == {}
    assert finding.held
