"""Rows that are left for the end: written together, in the transaction of their handlers, in order."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, Uuid, event, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from messaging.core.inbox import Decision, RowState
from messaging.errors import ConfigurationError
from messaging.stores.base import Grouping, GroupUndoneError, InboxKey, Reservation
from messaging.stores.sql import Inserts, SqlStore

LEAF = b"\1" * 32
FAR_MS = 4_000_000_000_000
THREE = Grouping(name="place_order", size=3, wait_s=30.0)

METADATA = MetaData()
ORDERS = Table("orders", METADATA, Column("id", Uuid, primary_key=True), Column("note", Text, nullable=True))
LINES = Table(
    "lines",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("order_id", Uuid, ForeignKey("orders.id")),
)


@pytest.fixture(autouse=True)
async def tables(engine: AsyncEngine, store: SqlStore) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)


def key(message_id: UUID | None = None) -> InboxKey:
    return InboxKey("orders", "users", message_id or uuid4())


async def reserve(store: SqlStore, of: InboxKey, grouping: Grouping | None) -> Reservation:
    return await store.inbox.reserve(of, leaf=LEAF, expires_at_ms=FAR_MS, lease_s=60, grouping=grouping)


def inserts_of(reservation: Reservation) -> Inserts:
    found = None if reservation.unit is None else reservation.unit.find(Inserts)
    assert isinstance(found, Inserts)
    return found


async def handle(store: SqlStore, of: InboxKey, order_id: UUID, grouping: Grouping | None = THREE) -> None:
    """Do what a consumer does: run, and alone once more if the group is undone."""
    reservation = await reserve(store, of, grouping)
    while reservation.decision is Decision.RUN:
        inserts = inserts_of(reservation)
        inserts.add(ORDERS, id=order_id)
        inserts.add(LINES, order_id=order_id)
        try:
            await store.inbox.complete(reservation)
        except GroupUndoneError:
            reservation = await store.inbox.renew(reservation)
        else:
            return


async def orders_in(engine: AsyncEngine) -> set[UUID]:
    async with engine.connect() as connection:
        return set((await connection.execute(select(ORDERS.c.id))).scalars())


async def lines_in(engine: AsyncEngine) -> list[UUID]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(LINES.c.order_id).order_by(LINES.c.number))).scalars())


async def test_rows_are_there_with_the_commit_and_not_before(store: SqlStore, engine: AsyncEngine) -> None:
    reservation = await reserve(store, key(), None)
    order_id = uuid4()

    inserts_of(reservation).add(ORDERS, id=order_id, note="a")
    before = await orders_in(engine)
    await store.inbox.complete(reservation)

    assert before == set()
    assert await orders_in(engine) == {order_id}


async def test_what_a_failed_run_left_is_forgotten(store: SqlStore, engine: AsyncEngine) -> None:
    reservation = await reserve(store, key(), None)
    inserts_of(reservation).add(ORDERS, id=uuid4())

    again = await store.inbox.renew(reservation)
    await store.inbox.complete(again)

    assert await orders_in(engine) == set()


async def test_rows_go_in_behind_what_the_handler_wrote_itself(store: SqlStore, engine: AsyncEngine) -> None:
    reservation = await reserve(store, key(), None)
    assert reservation.unit is not None
    connection = reservation.unit.find(AsyncConnection)
    assert isinstance(connection, AsyncConnection)
    order_id = uuid4()

    inserts_of(reservation).add(LINES, order_id=order_id)
    await connection.execute(insert(ORDERS), {"id": order_id})
    await store.inbox.complete(reservation)

    assert await lines_in(engine) == [order_id]


async def test_a_group_writes_its_rows_with_one_statement_for_each_table(store: SqlStore, engine: AsyncEngine) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    ids = [uuid4() for _ in range(3)]

    async with asyncio.timeout(60):
        await asyncio.gather(*(handle(store, key(), each) for each in ids))

    assert len([each for each in statements if each.startswith("INSERT INTO orders")]) == 1
    assert len([each for each in statements if each.startswith("INSERT INTO lines")]) == 1
    assert await orders_in(engine) == set(ids)
    assert await lines_in(engine) == ids


async def test_rows_with_other_columns_of_a_table_go_in_as_well(store: SqlStore, engine: AsyncEngine) -> None:
    reservation = await reserve(store, key(), None)
    inserts = inserts_of(reservation)

    inserts.add(ORDERS, id=UUID(int=1), note="a")
    inserts.add(ORDERS, id=UUID(int=2))
    inserts.add(ORDERS, note="c", id=UUID(int=3))
    await store.inbox.complete(reservation)

    assert await orders_in(engine) == {UUID(int=number) for number in (1, 2, 3)}


async def test_a_row_that_cannot_go_in_fails_its_handler_and_leaves_nothing(
    store: SqlStore, engine: AsyncEngine
) -> None:
    order_id, of = uuid4(), key()
    await handle(store, key(), order_id, None)

    with pytest.raises(IntegrityError):
        await handle(store, of, order_id, None)

    assert await lines_in(engine) == [order_id]
    assert await store.inbox.state(of, leaf=LEAF) is RowState.ABSENT


async def test_in_a_group_only_the_one_to_blame_fails(store: SqlStore, engine: AsyncEngine) -> None:
    taken, ids = uuid4(), [uuid4(), uuid4()]
    await handle(store, key(), taken, None)

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(
            *(handle(store, key(), each) for each in (ids[0], taken, ids[1])), return_exceptions=True
        )

    assert [type(outcome) for outcome in outcomes] == [type(None), IntegrityError, type(None)]
    assert await orders_in(engine) == {taken, *ids}


async def test_a_column_that_does_not_exist_is_said_where_it_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="'orders' has no column 'total'"):
        Inserts().add(ORDERS, total=1)
