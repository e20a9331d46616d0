"""A bundle older than the one that was used is refused at the start; what is used is written down, now or later."""

import asyncio

import pytest

from messaging.errors import ConfigurationError
from messaging.runtime import trust_record
from messaging.runtime.trust_record import TrustRecord
from messaging.stores.base import SeenBundle, StoreUnavailableError
from messaging.stores.memory import MemorySeenBundles
from tests.support.logs import Logs
from tests.support.realm import REALM, Realm
from tests.support.waiting import eventually


class Flaky(MemorySeenBundles):
    """A store that may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    async def newest(self, realm: str) -> SeenBundle | None:
        self._answer()
        return await super().newest(realm)

    async def record(self, realm: str, seen: SeenBundle) -> None:
        self._answer()
        await super().record(realm, seen)

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("the database does not answer")


async def version(seen: MemorySeenBundles) -> int | None:
    newest = await seen.newest(REALM)
    return None if newest is None else newest.version


async def test_what_is_in_force_is_written_down() -> None:
    realm, seen = Realm(), MemorySeenBundles()

    await TrustRecord(realm.stores["orders"]).begin(seen)

    current = realm.stores["orders"].current
    assert await seen.newest(REALM) == SeenBundle(version=current.version, digest=current.generation)


async def test_an_older_bundle_is_refused_and_changes_nothing() -> None:
    realm, seen = Realm(), MemorySeenBundles()
    await seen.record(REALM, SeenBundle(version=9, digest=b"9" * 32))

    with pytest.raises(ConfigurationError, match="version 2 is older than version 9"):
        await TrustRecord(realm.stores["orders"]).begin(seen)

    assert await version(seen) == 9


async def test_other_bytes_under_the_version_that_was_used_are_refused() -> None:
    realm, seen = Realm(), MemorySeenBundles()
    await seen.record(REALM, SeenBundle(version=2, digest=b"9" * 32))

    with pytest.raises(ConfigurationError, match="two different trust bundles have version 2"):
        await TrustRecord(realm.stores["orders"]).begin(seen)


async def test_a_newer_bundle_is_written_down_while_the_service_runs() -> None:
    realm, seen = Realm(), MemorySeenBundles()
    record = TrustRecord(realm.stores["orders"])
    await record.keep()
    await record.begin(seen)

    realm.publish()
    await record.keep()

    assert await version(seen) == 3


async def test_what_is_written_down_is_not_written_again() -> None:
    realm, seen = Realm(), Flaky()
    record = TrustRecord(realm.stores["orders"])
    await record.begin(seen)

    seen.is_away = True
    await record.keep()


async def test_a_store_that_is_away_is_told_next_time(logs: Logs) -> None:
    realm, seen = Realm(), Flaky()
    record = TrustRecord(realm.stores["orders"])
    await record.begin(seen)
    realm.publish()

    seen.is_away = True
    await record.keep()
    seen.is_away = False
    before = await version(seen)
    await record.keep()

    assert (before, await version(seen)) == (2, 3)
    assert [entry["log_level"] for entry in logs.of("trust.unrecorded")] == ["warning"]


async def test_a_start_fails_when_the_store_is_away() -> None:
    seen = Flaky()
    seen.is_away = True

    with pytest.raises(StoreUnavailableError):
        await TrustRecord(Realm().stores["orders"]).begin(seen)


async def test_a_start_that_may_wait_waits_for_the_store(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_record, "_WAIT_S", 0.001)
    seen = Flaky()
    seen.is_away = True

    beginning = asyncio.create_task(TrustRecord(Realm().stores["orders"]).begin(seen, wait_forever=True))
    await eventually(lambda: logs.events.count("trust.unrecorded") > 1)
    seen.is_away = False
    await beginning

    assert await version(seen) == 2
