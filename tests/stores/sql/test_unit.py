"""A handler's transaction: what is written when, and what a handler may do with its session."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, MetaData, Table, Uuid, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import ConfigurationError
from messaging.core.sealed import Label, Route
from messaging.errors import NotYetUsableError
from messaging.security.seal import restored
from messaging.stores.base import Outgoing, StoreUnavailableError
from messaging.stores.sql import SqlStore
from messaging.stores.sql.database import Database
from messaging.stores.sql.staging import Staging
from messaging.stores.sql.unit import SqlUnit


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    order_id: Mapped[UUID] = mapped_column(primary_key=True)


EFFECTS = Table("effects", MetaData(), Column("order_id", Uuid))


@pytest.fixture
async def unit(store: SqlStore, engine: AsyncEngine) -> SqlUnit:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(EFFECTS.metadata.create_all)
    database = Database(engine)
    return await SqlUnit.begin(database, Staging(database, "orders"))


def outgoing() -> Outgoing:
    label = Label(message_id=uuid4().hex, type="orders.order_placed/1")
    return Outgoing(sealed=restored(b"sealed"), route=Route(exchange="e", routing_key="k"), label=label)


async def count(engine: AsyncEngine, table: Table) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def test_what_the_session_still_holds_is_written_with_the_commit(unit: SqlUnit, engine: AsyncEngine) -> None:
    unit.session.add(Order(order_id=uuid4()))

    await unit.commit()

    assert await count(engine, Order.__table__) == 1  # type: ignore[arg-type]


async def test_staged_messages_are_rows_once_it_is_committed_and_not_before(
    unit: SqlUnit, engine: AsyncEngine, store: SqlStore
) -> None:
    for _ in range(3):
        await unit.stage(outgoing())
    before = await store.outbox("orders").depth()

    await unit.commit()

    assert before == (0, 0)
    assert await store.outbox("orders").depth() == (3, 0)


async def test_what_is_sealed_at_the_end_begins_together_and_keeps_its_order(unit: SqlUnit, store: SqlStore) -> None:
    first, second = outgoing(), outgoing()
    begun: list[asyncio.Future[Outgoing]] = []

    def sealing() -> asyncio.Future[Outgoing]:
        begun.append(asyncio.get_running_loop().create_future())
        if len(begun) == 2:
            # Had the second waited for the first, neither would ever be there.
            begun[1].set_result(second)
            begun[0].set_result(first)
        return begun[-1]

    await unit.stage(sealing)
    await unit.stage(middle := outgoing())
    await unit.stage(sealing)
    await unit.commit()

    rows = await store.outbox("orders").claim(limit=10, lease_s=1, owner="me")
    assert [row.label for row in rows] == [first.label, middle.label, second.label]


async def test_what_cannot_be_sealed_undoes_everything(unit: SqlUnit, engine: AsyncEngine, store: SqlStore) -> None:
    async def refused() -> Outgoing:
        raise NotYetUsableError("no key")

    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.stage(outgoing())
    await unit.stage(refused)
    with pytest.raises(NotYetUsableError):
        await unit.commit()

    assert await count(engine, EFFECTS) == 0
    assert await store.outbox("orders").depth() == (0, 0)


async def test_closing_undoes_everything_and_twice_is_once(unit: SqlUnit, engine: AsyncEngine, store: SqlStore) -> None:
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.stage(outgoing())

    await unit.close()
    await unit.close()

    assert await count(engine, EFFECTS) == 0
    assert await store.outbox("orders").depth() == (0, 0)


async def test_a_handler_that_commits_has_committed_nothing(unit: SqlUnit, engine: AsyncEngine) -> None:
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.session.commit()
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))

    await unit.close()

    assert await count(engine, EFFECTS) == 0


async def test_a_handler_that_rolls_back_is_told_instead_of_losing_its_inbox_row(unit: SqlUnit) -> None:
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.session.rollback()

    with pytest.raises(ConfigurationError, match="rolled back the transaction that the inbox row is in"):
        await unit.commit()


@pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
async def test_a_handler_that_rolls_back_and_goes_on_is_told_as_well(
    unit: SqlUnit, engine: AsyncEngine, kind: type
) -> None:
    lent: Any = unit.find(kind)
    await lent.execute(insert(EFFECTS).values(order_id=uuid4()))
    await lent.rollback()
    await lent.execute(insert(EFFECTS).values(order_id=uuid4()))

    with pytest.raises(ConfigurationError, match="rolled back the transaction that the inbox row is in"):
        await unit.commit()

    assert await count(engine, EFFECTS) == 0


async def test_a_handler_cannot_commit(unit: SqlUnit, engine: AsyncEngine) -> None:
    connection: Any = unit.find(AsyncConnection)
    await connection.execute(insert(EFFECTS).values(order_id=uuid4()))

    with pytest.raises(ConfigurationError, match="a handler cannot commit"):
        await connection.commit()
    with pytest.raises(ConfigurationError, match="rolled back"):
        await unit.commit()

    assert await count(engine, EFFECTS) == 0


async def test_a_session_gives_no_way_to_commit_either(unit: SqlUnit, engine: AsyncEngine) -> None:
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.session.commit()
    before = await count(engine, EFFECTS)
    under = await unit.session.connection()

    with pytest.raises(ConfigurationError, match="a handler cannot commit"):
        await under.commit()
    await unit.close()

    assert before == await count(engine, EFFECTS) == 0


async def test_whoever_swallows_that_nothing_could_be_scheduled_or_cancelled_loses_no_inbox_row(
    unit: SqlUnit, engine: AsyncEngine
) -> None:
    await unit.connection.execute(insert(EFFECTS).values(order_id=uuid4()))
    await unit.connection.execute(text("ALTER TABLE messaging_schedule RENAME TO away"))

    with suppress(DBAPIError, StoreUnavailableError):
        await unit.cancel(uuid4())
    if engine.dialect.name == "postgresql":
        with pytest.raises(ConfigurationError, match="PostgreSQL has undone everything"):
            await unit.commit()
    else:
        await unit.commit()

    assert await count(engine, EFFECTS) == (engine.dialect.name == "sqlite")


async def test_a_part_that_may_fail_has_a_savepoint_of_its_own(unit: SqlUnit, engine: AsyncEngine) -> None:
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    nested = await unit.session.begin_nested()
    await unit.session.execute(insert(EFFECTS).values(order_id=uuid4()))
    await nested.rollback()

    await unit.commit()

    assert await count(engine, EFFECTS) == 1


async def test_a_handler_finds_the_session_and_the_connection_under_it(unit: SqlUnit, engine: AsyncEngine) -> None:
    connection = unit.find(AsyncConnection)
    assert isinstance(connection, AsyncConnection)
    await connection.execute(insert(EFFECTS).values(order_id=uuid4()))

    session = unit.find(AsyncSession)
    await unit.commit()

    assert isinstance(session, AsyncSession)
    assert unit.find(Order) is None
    assert await count(engine, EFFECTS) == 1


@pytest.mark.parametrize("is_sending", [False, True])
async def test_a_handler_that_swallows_an_error_of_the_database_loses_nothing_silently(
    unit: SqlUnit, engine: AsyncEngine, is_sending: bool
) -> None:
    order_id = uuid4()
    for _ in range(2):
        with suppress(IntegrityError):
            await unit.session.execute(insert(Order).values(order_id=order_id))
    if is_sending:
        await unit.stage(outgoing())

    if engine.dialect.name == "sqlite":
        await unit.commit()
        assert await count(engine, Order.__table__) == 1  # type: ignore[arg-type]
    else:
        with pytest.raises(ConfigurationError, match="went on after a statement of its own had failed"):
            await unit.commit()
