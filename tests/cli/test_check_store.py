"""What the doctor says of a durable store, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging import Service
from messaging.cli.check_store import check_store
from messaging.cli.finding import Finding, State
from messaging.settings import Settings
from messaging.stores.base import InboxKey
from messaging.stores.sql import SqlStore
from messaging.stores.sql.migrations import migrate
from tests.support.databases import database_url, postgres_server, postgres_url

__all__ = ["database_url", "postgres_server", "postgres_url"]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, **({"pool_size": 20} if "postgresql" in database_url else {}))
    yield engine
    await engine.dispose()


async def found(engine: AsyncEngine | None, *, inbox_alarm_rows: int = 1_000) -> list[Finding]:
    service = Service("orders", store=None if engine is None else SqlStore(engine))
    settings = Settings.development(prefetch=20, inbox_alarm_rows=inbox_alarm_rows)
    return [finding async for finding in check_store(service, settings)]


async def handled(engine: AsyncEngine, sender: str, count: int) -> None:
    inbox = SqlStore(engine).inbox
    for _ in range(count):
        key = InboxKey("orders", sender, uuid4())
        await inbox.complete(await inbox.reserve(key, leaf=b"1" * 32, expires_at_ms=1, lease_s=1))


async def test_a_service_without_a_store_has_nothing_to_look_at() -> None:
    assert await found(None) == []


async def test_tables_that_are_behind_are_told_with_the_way_to_the_newest(engine: AsyncEngine) -> None:
    [empty] = await found(engine)
    await migrate(engine, to="0002")
    [old] = await found(engine)

    assert (empty.state, old.state) == (State.WARN, State.WARN)
    assert "no version is recorded" in empty.words
    assert "version 0002" in old.words
    assert old.remedy == "run `messaging store migrate`"


async def test_who_fills_the_inbox_is_told(engine: AsyncEngine) -> None:
    await migrate(engine)
    await handled(engine, "users", 1)
    await handled(engine, "shop", 3)

    findings = await found(engine, inbox_alarm_rows=3)

    assert [finding.state for finding in findings] == [State.OK, State.OK]
    assert findings[1].words == "inbox within an hour, the most: shop 3 rows"


async def test_a_sender_beyond_the_limit_is_an_alarm(engine: AsyncEngine) -> None:
    await migrate(engine)
    await handled(engine, "users", 1)
    await handled(engine, "shop", 3)

    [_, alarm] = await found(engine, inbox_alarm_rows=2)

    assert (alarm.state, alarm.words) == (State.WARN, "shop has added 3 rows to the inbox within an hour")


@pytest.mark.postgres
async def test_fewer_connections_than_handlers_are_told(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url, pool_size=4, max_overflow=1)
    await migrate(engine)

    [narrow, *_] = await found(engine)
    await engine.dispose()

    assert narrow.state is State.WARN
    assert narrow.words == "5 connections for up to 20 handlers at once: the others wait"


async def test_a_database_that_does_not_answer_is_a_failure() -> None:
    [failed] = await found(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none", pool_size=20))

    assert failed.state is State.FAIL
    assert "does not answer" in failed.words
