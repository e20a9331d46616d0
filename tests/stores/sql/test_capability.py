"""Without the short ways to the drivers the store keeps what it promises, through SQLAlchemy alone."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from messaging.stores.sql import capability
from messaging.stores.sql.capability import has_short_ways
from messaging.stores.sql.database import Database
from messaging.stores.sql.direct import Direct
from messaging.stores.sql.turns import TurnConnection

THINGS = Table("things", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False))


@pytest.fixture
def detour(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capability, "_TESTED", {"sqlalchemy": ((1, 0), (1, 1))})
    has_short_ways.cache_clear()
    yield
    has_short_ways.cache_clear()


async def things_of(engine: AsyncEngine) -> Direct:
    direct = Direct(engine, Database(engine).insert(THINGS).on_conflict_do_nothing().returning(THINGS.c.id), ("id",))
    async with engine.begin() as connection:
        await connection.run_sync(THINGS.metadata.create_all)
    return direct


async def count_of(engine: AsyncEngine) -> int | None:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(THINGS))


def test_the_installed_versions_are_tested_ones() -> None:
    has_short_ways.cache_clear()

    with capture_logs() as logged:
        assert has_short_ways()

    assert logged == []


@pytest.mark.usefixtures("detour")
def test_another_version_is_named_once_with_the_one_to_install() -> None:
    with capture_logs() as logged:
        found = [has_short_ways() for _ in range(3)]

    assert found == [False, False, False]
    assert [(entry["event"], entry["remedy"]) for entry in logged] == [
        ("store.detour", "install sqlalchemy>=1.0,<1.1"),
    ]


@pytest.mark.usefixtures("detour")
async def test_rows_go_in_and_tell_what_they_return_but_not_twice(engine: AsyncEngine) -> None:
    direct = await things_of(engine)

    async with engine.begin() as connection:
        new = await direct.run(connection, [{"id": 1}, {"id": 2}])
        again = await direct.before_commit(connection, [{"id": 2}, {"id": 3}])
        adapter = (await connection.get_raw_connection()).dbapi_connection

    assert new == [(1,), (2,)]
    assert again == [(3,)]
    assert await count_of(engine) == 3
    assert not isinstance(adapter, TurnConnection)


@pytest.mark.usefixtures("detour")
async def test_a_rollback_leaves_nothing_of_them(engine: AsyncEngine) -> None:
    direct = await things_of(engine)

    async with Database(engine).writer.connect() as connection:
        await connection.begin()
        await direct.run(connection, [{"id": 1}])
        await direct.before_commit(connection, [{"id": 2}])
        await connection.rollback()

    assert await count_of(engine) == 0
