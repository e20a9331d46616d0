import asyncio
import time
from uuid import uuid4

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.stores.base import InboxKey, StoreUnavailableError
from messaging.stores.sql import SqlStore
from messaging.stores.sql.database import Database, bound_waits, is_undone, mapped


async def test_the_clock_is_the_databases_in_milliseconds(engine: AsyncEngine) -> None:
    database = Database(engine)

    async with engine.connect() as connection:
        now_ms = await connection.scalar(select(database.now_ms()))

    assert now_ms is not None
    assert abs(int(now_ms) - time.time() * 1000) < 60_000


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
async def test_the_larger_of_two_is_found_by_either_kind(engine: AsyncEngine, first: int, second: int) -> None:
    database = Database(engine)

    async with engine.connect() as connection:
        assert await connection.scalar(select(database.larger(literal(first), literal(second)))) == 2


async def test_several_replicas_may_make_the_tables_at_once(engine: AsyncEngine) -> None:
    await asyncio.gather(*(Database(engine).create_tables() for _ in range(4)))

    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM messaging_inbox")) == 0


async def test_writers_of_one_process_queue_instead_of_failing(engine: AsyncEngine) -> None:
    database = Database(engine)
    await database.create_tables()

    async def write() -> None:
        async with database.writing() as connection:
            await connection.execute(text("DELETE FROM messaging_outbox"))

    await asyncio.gather(*(write() for _ in range(20)))


async def test_a_database_that_is_not_there_is_local_trouble() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")

    with pytest.raises(StoreUnavailableError, match="does not answer"):
        await Database(engine).create_tables()


async def test_a_host_that_has_no_address_is_local_trouble() -> None:
    # Longer than a name may be: known without asking anybody.
    nowhere = ".".join(["nowhere" * 8] * 5)
    engine = create_async_engine(f"postgresql+asyncpg://nobody@{nowhere}/none")

    with pytest.raises(StoreUnavailableError, match="gaierror"):
        await Database(engine).create_tables()


async def test_tables_that_nobody_made_are_local_trouble(engine: AsyncEngine) -> None:
    key = InboxKey("orders", "users", uuid4())

    with pytest.raises(StoreUnavailableError, match="create_tables"):
        await SqlStore(engine).inbox.reserve(key, leaf=b"1" * 32, expires_at_ms=1, lease_s=1)


@pytest.mark.postgres
async def test_a_login_that_the_server_does_not_admit_now_is_local_trouble(postgres_url: str) -> None:
    engine = create_async_engine(make_url(postgres_url).set(username="nobody_there"))

    with pytest.raises(StoreUnavailableError, match="InvalidAuthorizationSpecificationError"):
        await Database(engine).create_tables()


async def test_sqlite_waits_for_the_disk_and_writes_ahead(tmp_path: object) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    Database(engine)

    async with engine.connect() as connection:
        modes = [await connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")]
    await engine.dispose()

    assert modes == ["wal", 2]


@pytest.mark.parametrize("is_opened_before", [False, True])
async def test_a_transaction_that_sqlite_undid_by_itself_is_known(tmp_path: object, *, is_opened_before: bool) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    if is_opened_before:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    writer = Database(engine).writer

    async with writer.connect() as connection:
        await connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO things VALUES (1)"))
        seen = [is_undone(connection)]
        for again in ("INSERT OR FAIL INTO things VALUES (1)", "INSERT OR ROLLBACK INTO things VALUES (1)"):
            with pytest.raises(IntegrityError):
                await connection.execute(text(again))
            seen.append(is_undone(connection))
    await engine.dispose()

    assert seen == [False, False, True]


def test_other_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"), mapped():
        raise ValueError("mine")
    with pytest.raises(IntegrityError), mapped():
        raise IntegrityError("INSERT", {}, Exception("twice"))
    with pytest.raises(StoreUnavailableError), mapped():
        raise OperationalError("SELECT 1", {}, Exception("gone"))


def test_a_server_that_says_nothing_is_not_waited_for_without_end() -> None:
    by_default: dict[str, object] = {}
    decided: dict[str, object] = {"command_timeout": None, "timeout": 3.0}

    bound_waits(None, None, (), by_default)
    bound_waits(None, None, (), decided)

    assert by_default == {"timeout": 10.0, "command_timeout": 30.0}
    assert decided == {"command_timeout": None, "timeout": 3.0}


@pytest.mark.postgres
async def test_a_statement_that_is_never_answered_is_local_trouble(postgres_url: str) -> None:
    patient = create_async_engine(postgres_url)
    impatient = create_async_engine(postgres_url, connect_args={"command_timeout": 0.2})
    store = SqlStore(patient)
    await store.create_tables()
    key = InboxKey("orders", "users", uuid4())
    held = await store.inbox.reserve(key, leaf=b"1" * 32, expires_at_ms=1, lease_s=1)

    # The same message elsewhere waits for the first one's transaction, here as if the server had frozen.
    with pytest.raises(StoreUnavailableError, match="TimeoutError"):
        await SqlStore(impatient).inbox.reserve(key, leaf=b"1" * 32, expires_at_ms=1, lease_s=1)

    await store.inbox.complete(held)
    await impatient.dispose()
    await patient.dispose()
