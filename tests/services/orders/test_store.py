"""The orders' table on SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from services.database import create_tables, open_database
from services.orders.contract import OrderNotFound, OrderStatus, PlaceOrder, RejectReason
from services.orders.store import OrderConflictError, OrderStore, metadata

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
UNKNOWN = RejectReason.UNKNOWN_USER


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with open_database(database_url) as engine:
        await create_tables(engine, metadata)
        yield engine


@pytest.fixture
async def store(database: AsyncEngine) -> AsyncIterator[OrderStore]:
    async with AsyncSession(database) as session, session.begin():
        yield OrderStore(session)


def tea(user_id: UUID | None = None) -> PlaceOrder:
    return PlaceOrder(order_id=uuid4(), user_id=user_id or uuid4(), item="Darjeeling", total_cents=1250)


async def test_a_placed_order_is_found(store: OrderStore) -> None:
    order = tea()

    await store.place(order, at=NOW)

    view = await store.get(order.order_id)
    assert (view.order_id, view.user_id, view.item, view.total_cents) == tuple(order.model_dump().values())
    assert (view.status, view.reason, view.changed_at) == (OrderStatus.PLACED, None, NOW)
    assert await store.is_placed(order)


async def test_an_unknown_order_is_a_typed_failure(store: OrderStore) -> None:
    order_id = uuid4()

    with pytest.raises(OrderNotFound) as caught:
        await store.get(order_id)

    assert caught.value.order_id == order_id


async def test_a_rejected_order_tells_why_and_is_not_placed(store: OrderStore) -> None:
    order = tea()

    await store.reject(order, UNKNOWN, at=NOW)

    view = await store.get(order.order_id)
    assert (view.status, view.reason) == (OrderStatus.REJECTED, UNKNOWN)
    assert not await store.is_placed(order)


async def test_a_rejected_order_may_be_placed_later(store: OrderStore) -> None:
    order = tea()
    await store.reject(order, UNKNOWN, at=NOW)

    await store.place(order, at=NOW + timedelta(hours=1))

    view = await store.get(order.order_id)
    assert (view.status, view.reason, view.changed_at) == (OrderStatus.PLACED, None, NOW + timedelta(hours=1))


async def test_a_placed_order_stays_placed(store: OrderStore) -> None:
    order = tea()
    await store.place(order, at=NOW)

    await store.reject(order, UNKNOWN, at=NOW + timedelta(hours=1))
    await store.place(order, at=NOW + timedelta(hours=2))

    view = await store.get(order.order_id)
    assert (view.status, view.changed_at) == (OrderStatus.PLACED, NOW)


@pytest.mark.parametrize("change", [{"item": "Assam"}, {"total_cents": 1}, {"user_id": UUID(int=7)}])
async def test_another_order_under_the_same_id_is_a_conflict(store: OrderStore, change: dict[str, object]) -> None:
    order = tea()
    await store.place(order, at=NOW)
    other = order.model_copy(update=change)

    with pytest.raises(OrderConflictError, match=str(order.order_id)):
        await store.place(other, at=NOW)
    with pytest.raises(OrderConflictError, match=str(order.order_id)):
        await store.reject(other, UNKNOWN, at=NOW)
    with pytest.raises(OrderConflictError, match=str(order.order_id)):
        await store.is_placed(other)

    assert (await store.get(order.order_id)).item == order.item


async def test_concurrent_repetitions_place_once(database: AsyncEngine, store: OrderStore) -> None:
    order = tea()

    async def place() -> None:
        async with AsyncSession(database) as session, session.begin():
            await OrderStore(session).place(order, at=NOW)

    await asyncio.gather(*(place() for _ in range(10)))

    assert len(await store.of_user(order.user_id, limit=10)) == 1


async def test_orders_of_a_user_come_latest_first_and_bounded(store: OrderStore) -> None:
    user_id = uuid4()
    orders = [tea(user_id) for _ in range(3)]
    for hours, order in enumerate(orders):
        await store.place(order, at=NOW + timedelta(hours=hours))
    await store.place(tea(), at=NOW)

    found = await store.of_user(user_id, limit=2)

    assert [view.order_id for view in found] == [orders[2].order_id, orders[1].order_id]


async def test_the_largest_total_fits(store: OrderStore) -> None:
    order = tea().model_copy(update={"total_cents": 1_000_000_000_000})

    await store.place(order, at=NOW)

    assert (await store.get(order.order_id)).total_cents == 1_000_000_000_000
