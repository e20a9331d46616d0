"""The newest trust bundle is remembered in the database, and a restart with an older one is refused."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging import Command, ConfigurationError, Context, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.message import contract_of
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from messaging.security.trust import BUNDLE_FILE
from messaging.stores.base import SeenBundle, StoreUnavailableError
from messaging.stores.sql import SqlStore
from tests.support.waiting import eventually


class Count(Command, name="orders.count"):
    number: int


OLD, NEW = SeenBundle(version=3, digest=b"a" * 32), SeenBundle(version=4, digest=b"b" * 32)
ORDERS = Contract(handles=Subscriptions(commands=frozenset({(contract_of(Count).name, 1)})))


async def test_nothing_is_remembered_at_first(store: SqlStore) -> None:
    assert await store.seen_bundles("orders").newest("prod") is None


async def test_the_newest_one_is_remembered(store: SqlStore) -> None:
    seen = store.seen_bundles("orders")

    for bundle in (OLD, NEW):
        await seen.record("prod", bundle)

    assert await seen.newest("prod") == NEW


@pytest.mark.parametrize("later", [OLD, SeenBundle(version=4, digest=b"c" * 32)])
async def test_neither_an_older_one_nor_another_of_that_version_takes_its_place(
    store: SqlStore, later: SeenBundle
) -> None:
    seen = store.seen_bundles("orders")
    await seen.record("prod", NEW)

    await seen.record("prod", later)

    assert await seen.newest("prod") == NEW


async def test_each_service_and_realm_remembers_for_itself(store: SqlStore) -> None:
    await store.seen_bundles("orders").record("prod", NEW)

    assert await store.seen_bundles("users").newest("prod") is None
    assert await store.seen_bundles("orders").newest("staging") is None


async def test_of_replicas_that_record_at_once_the_newest_bundle_stays(store: SqlStore, engine: AsyncEngine) -> None:
    replicas = [SqlStore(engine).seen_bundles("orders") for _ in range(4)]
    bundles = [SeenBundle(version=version, digest=bytes([version]) * 32) for version in range(1, 21)]

    await asyncio.gather(*(replicas[at % 4].record("prod", bundle) for at, bundle in enumerate(reversed(bundles))))

    assert await store.seen_bundles("orders").newest("prod") == bundles[-1]


async def test_a_database_without_the_table_says_what_is_to_be_done(engine: AsyncEngine) -> None:
    seen = SqlStore(engine).seen_bundles("orders")

    with pytest.raises(StoreUnavailableError, match="migrations"):
        await seen.newest("prod")
    with pytest.raises(StoreUnavailableError, match="migrations"):
        await seen.record("prod", NEW)


def started(folder: Path, engine: AsyncEngine) -> Service:
    """Return a service as a new process would make it."""
    settings = Settings(broker_url="memory://", keys=folder, trust_poll_s=0.02)
    service = Service("orders", settings, store=SqlStore(engine))

    @service.on_command(Count)
    async def count(command: Count, context: Context) -> None:
        """Nothing to do."""

    return service


async def has_seen(store: SqlStore, realm: str, version: int) -> bool:
    newest = await store.seen_bundles("orders").newest(realm)
    return newest is not None and newest.version == version


async def test_a_restart_with_an_older_bundle_is_refused(store: SqlStore, engine: AsyncEngine, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    init_development(folder, {"orders": ORDERS}, ambient=real_ambient())
    bundle = folder / BUNDLE_FILE
    older = bundle.read_bytes()
    async with started(folder, engine) as service:
        users = Contract(handles=Subscriptions())
        made = init_development(folder, {"orders": ORDERS, "users": users}, ambient=real_ambient())
        newer = bundle.read_bytes()
        assert service.health.is_ready
        await eventually(lambda: has_seen(store, made.realm, 2))

    bundle.write_bytes(older)
    with pytest.raises(ConfigurationError, match="version 1 is older than version 2, which was in force before"):
        await started(folder, engine).start()

    bundle.write_bytes(newer)
    async with started(folder, engine) as service:
        assert service.health.is_ready


async def test_a_restart_with_another_bundle_of_that_version_is_refused(
    store: SqlStore, engine: AsyncEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    made = init_development(folder, {"orders": ORDERS}, ambient=real_ambient())
    await store.seen_bundles("orders").record(made.realm, SeenBundle(version=1, digest=bytes(32)))

    with pytest.raises(ConfigurationError, match="two different trust bundles have version 1"):
        await started(folder, engine).start()
