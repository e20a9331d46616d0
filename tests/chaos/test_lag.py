"""Messages that are older than usual, or ahead of whoever receives them: five days old, under a new key or grant."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.aside import set_aside
from tests.chaos.bundles import Bundles
from tests.chaos.findings import Finding
from tests.chaos.history import What, read_history
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

FIVE_DAYS_S: Final = 5 * 24 * 3_600
AGED: Final = 150
LOAD_S: Final = 90.0
# Receivers keep at most a hundred messages each that they cannot verify yet (docs/trust.md, "Lag").
FEW_PER_S: Final = 3.0
STALE_S: Final = 5.0
EXTRA: Final = "chaos.extra"


async def test_commands_are_five_days_old(rig: Rig, findings: list[Finding]) -> None:
    await rig.start("witness")
    old = await rig.start(count=2)
    await rig.load()

    for worker in old:
        worker.signal(signal.SIGTERM)
    codes = [await rig.died(worker) for worker in old]
    mix = {What.APPLY: 20, What.SPOIL: 2}
    await rig.load(rate=100.0, limit=AGED, flaky=0.1, mix=mix, CHAOS_AGE_S=str(FIVE_DAYS_S))
    assert await rig.loads[-1].ended(LOAD_S) == 0, rig.loads[-1].last_words()
    await rig.start(count=2)
    await asyncio.sleep(rig.chance.uniform(0, 1))
    await rig.kill(rig.chance.choice(rig.of("chaos")))
    await rig.start()
    await rig.recovered()
    finding, judgement = await rig.judged("commands five days old, beside new ones")
    findings.append(finding)

    assert set(codes) == {0}
    assert judgement.confirmed >= AGED
    assert judgement.problems == {}
    assert await set_aside(rig) == {}
    assert finding.held


def a_new_key(bundles: Bundles) -> Path:
    """Return the folder of a caller whose keys nobody else knows yet."""
    ahead = bundles.copied("ahead")
    bundles.renew_key(ahead)
    return ahead


def a_new_grant(bundles: Bundles) -> Path:
    """Return the folder of a caller who may send what nobody else knows that he may."""
    bundles.withhold(bundles.keys, "chaos.apply", "chaos.spoil")
    ahead = bundles.copied("ahead")
    bundles.grant(ahead, EXTRA)
    return ahead


@pytest.mark.parametrize(
    ("fault", "prepare", "first"),
    [
        pytest.param("first messages under a new key, stale bundles", a_new_key, What.APPLY, id="key"),
        pytest.param("first messages under a new grant, stale bundles", a_new_grant, What.EXTRA, id="grant"),
    ],
)
async def test_receivers_have_not_got_the_bundle_yet(
    rig: Rig, fault: str, prepare: Callable[[Bundles], Path], first: What, findings: list[Finding]
) -> None:
    bundles = Bundles(rig.folder / "keys")
    ahead = prepare(bundles)
    late = [bundles.copied(f"late-{number}") for number in range(2)]
    await rig.start("witness")
    for folder in late:
        await rig.start(MESSAGING_KEYS=str(folder), CHAOS_VERSION="2")
    await rig.load()

    await rig.load(rate=FEW_PER_S, mix={first: 1}, MESSAGING_KEYS=str(ahead))
    await asyncio.sleep(rig.chance.uniform(1, STALE_S))
    # Whoever dies meanwhile has held nothing that would go with it.
    await rig.kill(rig.of("chaos")[-1])
    await rig.start(MESSAGING_KEYS=str(late[-1]), CHAOS_VERSION="2")
    await asyncio.sleep(rig.chance.uniform(1, STALE_S))
    waited = rig.told("chaos", "delivery.deferred")
    for folder in late:
        # One replica after the other, as bundles are copied.
        bundles.install(folder, newest=ahead)
        await asyncio.sleep(rig.chance.uniform(1, STALE_S))
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)

    sent = [call for call in read_history(rig.history_file).values() if call.what is first]
    assert waited, "whoever had no such bundle kept them waiting"
    assert sent
    assert judgement.problems == {}
    assert await set_aside(rig) == {}, "nothing that was authentic and allowed is refused, or taken for a forgery"
    assert finding.held
