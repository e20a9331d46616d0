"""A newer bundle is taken without a restart, a bad one never."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from messaging.runtime import trust_watch
from messaging.runtime.trust_watch import watch_trust
from tests.support.logs import Logs
from tests.support.realm import Realm
from tests.support.waiting import eventually, holds


@asynccontextmanager
async def watched(realm: Realm, path: Path, *, poll_s: float = 0.001) -> AsyncIterator[asyncio.Event]:
    lagging = asyncio.Event()
    watching = asyncio.create_task(watch_trust(realm.stores["orders"], path, poll_s=poll_s, lagging=lagging))
    yield lagging
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_newer_bundle_is_taken(tmp_path: Path, logs: Logs) -> None:
    realm, path = Realm(), tmp_path / "trust.bundle"
    path.write_bytes(realm.change())
    version = realm.payload["version"]

    async with watched(realm, path):
        await eventually(lambda: realm.stores["orders"].current.version == version)

    assert [entry["version"] for entry in logs.of("trust.reloaded")] == [version]


async def test_a_bad_bundle_is_logged_and_the_last_good_one_stays(tmp_path: Path, logs: Logs) -> None:
    realm, path = Realm(), tmp_path / "trust.bundle"
    path.write_bytes(b"junk")
    version = realm.stores["orders"].current.version

    async with watched(realm, path):
        await eventually(lambda: "trust.rejected" in logs.events)
        assert realm.stores["orders"].current.version == version

        path.write_bytes(realm.change())
        await eventually(lambda: "trust.reloaded" in logs.events)


async def test_a_missing_file_is_logged_with_its_remedy(tmp_path: Path, logs: Logs) -> None:
    async with watched(Realm(), tmp_path / "trust.bundle"):
        await eventually(lambda: "trust.rejected" in logs.events)

    assert "messaging trust init" in str(logs.of("trust.rejected")[0]["reason"])


async def test_a_hint_that_this_service_lags_brings_the_next_look_forward(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_watch, "_PAUSE_S", 0.001)
    realm, path = Realm(), tmp_path / "trust.bundle"
    path.write_bytes(realm.change())

    async with watched(realm, path, poll_s=60.0) as lagging:
        await holds(lambda: logs.events == [], 0.05)
        lagging.set()
        await eventually(lambda: "trust.reloaded" in logs.events)
        assert not lagging.is_set()


async def test_hints_never_make_it_more_than_one_look_in_a_pause(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_watch, "_PAUSE_S", 0.05)

    async with watched(Realm(), tmp_path / "trust.bundle", poll_s=60.0) as lagging:
        begun_s = asyncio.get_running_loop().time()
        for _ in range(100):
            lagging.set()
            await asyncio.sleep(0.001)
        took_s = asyncio.get_running_loop().time() - begun_s

    # One at once, and one at the end of each pause: a slow machine has more of them.
    assert logs.events.count("trust.rejected") <= took_s / 0.05 + 2


async def test_a_bundle_past_its_life_is_told_now_and_then(tmp_path: Path, logs: Logs) -> None:
    realm, path = Realm(), tmp_path / "trust.bundle"
    path.write_bytes(realm.change())

    async with watched(realm, path):
        await eventually(lambda: "trust.reloaded" in logs.events)
        await holds(lambda: "trust.expired" not in logs.events, 0.02)
        realm.clock.advance(365 * 24 * 3600 + 1.0)
        await eventually(lambda: "trust.expired" in logs.events)
        await holds(lambda: logs.events.count("trust.expired") == 1, 0.02)

    [entry] = logs.of("trust.expired")
    assert (entry["version"], entry["freshness"]) == (realm.payload["version"], "grace")
