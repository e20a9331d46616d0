"""Schedules from the shell: a store, and neither broker nor service."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.stores.base import Outgoing, Scheduled
from messaging.stores.sql import SqlStore
from tests.support.installation import Installation

STORED = """
from contextlib import asynccontextmanager
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from messaging import Service
from messaging.stores.sql import SqlStore

@asynccontextmanager
async def opened(service):
    engine = create_async_engine("sqlite+aiosqlite:///shop.db")
    yield object(), SqlStore(engine)
    await engine.dispose()

by_lifespan = Service("shop", lifespan=opened)
given = Service("shop", store=SqlStore(create_async_engine("sqlite+aiosqlite:///shop.db", poolclass=NullPool)))
bare = Service("shop")
"""
FUTURE = datetime.now(UTC) + timedelta(days=1, hours=12)


@pytest.fixture
def stored(offline: Installation) -> Installation:
    (offline.folder / "stored.py").write_text(STORED)
    return offline


def scheduled(installation: Installation, *times: datetime, failing: bool = False) -> list[UUID]:
    """Put messages into the store, and release what is due."""
    ids = [uuid4() for _ in times]

    async def refused(_draft: bytes) -> Outgoing | None:
        if failing:
            raise ValueError
        return None

    async def put() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{installation.folder / 'shop.db'}")
        store = SqlStore(engine)
        await store.create_tables()
        for message_id, at in zip(ids, times, strict=True):
            await store.schedule("shop").add(
                Scheduled(
                    message_id=message_id,
                    message_type="shop.place_order/1",
                    deliver_at_ms=round(at.timestamp() * 1000),
                    draft=b"",
                )
            )
        await store.schedule("shop").release(refused, limit=100)
        await engine.dispose()

    asyncio.run(put())
    return ids


class TestList:
    @pytest.mark.parametrize("service", ["by_lifespan", "given"])
    def test_the_next_due_comes_first(self, stored: Installation, service: str) -> None:
        later, sooner = scheduled(stored, FUTURE + timedelta(days=1), FUTURE)

        shown = stored.call("schedules", "list", f"stored:{service}").stdout

        assert shown.index(str(sooner)) < shown.index(str(later))
        assert "shop.place_order/1" in shown
        assert FUTURE.strftime("%Y-%m-%d %H:%M:%SZ") in shown
        assert "1 d" in shown

    def test_as_json_with_what_is_wrong(self, stored: Installation) -> None:
        [message_id] = scheduled(stored, datetime.now(UTC), failing=True)

        [row] = stored.json("schedules", "list", "stored:given", "--json")

        assert (row["id"], row["attempts"], row["problem"]) == (str(message_id), 1, "a defect: ValueError")
        assert "1 try: a defect" in stored.call("schedules", "list", "stored:given").stdout

    def test_no_more_than_asked_for(self, stored: Installation) -> None:
        scheduled(stored, *(FUTURE + timedelta(days=days) for days in range(3)))

        result = stored.call("schedules", "list", "stored:given", "--limit", "2", "--json")

        assert result.stdout.count("shop.place_order/1") == 2
        assert "--limit" in result.stderr

    def test_of_nothing(self, stored: Installation) -> None:
        scheduled(stored)

        assert "Nothing waits" in stored.call("schedules", "list", "stored:given").stdout
        assert stored.json("schedules", "list", "stored:given", "--json") == []

    def test_without_a_store_there_is_nothing_to_list(self, stored: Installation) -> None:
        result = stored.call("schedules", "list", "stored:bare")

        assert result.exit_code == 2
        assert "has no store" in result.stderr

    def test_without_tables_the_remedy_is_named(self, stored: Installation) -> None:
        result = stored.call("schedules", "list", "stored:given")

        assert result.exit_code == 1
        assert "migrations" in result.stderr


class TestCancel:
    def test_it_is_on_record(self, stored: Installation) -> None:
        [message_id] = scheduled(stored, FUTURE)

        stored.call("--log-file", "acts.jsonl", "schedules", "cancel", "stored:given", str(message_id), str(uuid4()))

        [act] = [json.loads(line) for line in (stored.folder / "acts.jsonl").read_text().splitlines()]
        assert (act["event"], act["service"], act["message_id"]) == ("schedule.cancelled", "shop", str(message_id))

    def test_what_waits(self, stored: Installation) -> None:
        first, second = scheduled(stored, FUTURE, FUTURE)

        result = stored.call("schedules", "cancel", "stored:by_lifespan", str(first), str(second))

        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines() == [f"{first} cancelled", f"{second} cancelled"]
        assert stored.json("schedules", "list", "stored:given", "--json") == []

    def test_what_was_sent(self, stored: Installation) -> None:
        [message_id] = scheduled(stored, datetime.now(UTC))

        result = stored.call("schedules", "cancel", "stored:given", str(message_id), str(uuid4()))

        assert result.exit_code == 1
        assert f"{message_id} was sent already" in result.stdout

    def test_what_is_not_known(self, stored: Installation) -> None:
        [known] = scheduled(stored, FUTURE)
        unknown = uuid4()

        result = stored.call("schedules", "cancel", "stored:given", str(known), str(unknown), "--json")

        assert result.exit_code == 5
        assert f'"id": "{unknown}",\n    "outcome": "unknown"' in result.stdout
        assert '"outcome": "cancelled"' in result.stdout

    def test_what_is_no_id(self, stored: Installation) -> None:
        assert stored.call("schedules", "cancel", "stored:given", "0198").exit_code == 2
