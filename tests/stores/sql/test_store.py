"""Whole services over the durable store: one transaction for inbox, business rows and what is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, MetaData, NullPool, Table, Uuid, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from messaging import Command, ConfigurationError, Context, Event, Reject, Request, RetryPolicy, Service
from messaging.stores.base import InboxKey
from messaging.stores.sql import SqlStore
from messaging.testing import Harness
from tests.support.waiting import LIMIT_S

_business = MetaData()
# No primary key: a second run would leave a second row.
EFFECTS = Table("effects", _business, Column("order_id", Uuid))


class PlaceOrder(Command, name="orders.place_order"):
    order_id: UUID


class OrderPlaced(Event, name="orders.order_placed"):
    order_id: UUID


class CountOrders(Request[int], name="orders.count_orders"):
    pass


class World:
    """An orders service on a database, and what its handler shall do."""

    def __init__(self, store: SqlStore, engine: AsyncEngine) -> None:
        self.engine = engine
        self.failures: list[BaseException] = []
        self.heard: list[UUID] = []
        self.orders = Service("orders", store=store, retry=RetryPolicy(immediate=1, delays_s=(1.0,)))
        self.users = Service("users")
        self.orders.on_command(PlaceOrder)(self.place_order)
        self.orders.on_request(CountOrders)(self.count_orders)
        self.users.on_event(OrderPlaced)(self.hear)

    async def place_order(self, command: PlaceOrder, context: Context, session: AsyncSession) -> None:
        await session.execute(insert(EFFECTS).values(order_id=command.order_id))
        await context.publish(OrderPlaced(order_id=command.order_id))
        if self.failures:
            raise self.failures.pop(0)

    async def count_orders(self, request: CountOrders, context: Context) -> int:
        count = await context.resource(AsyncSession).scalar(select(func.count()).select_from(EFFECTS))
        return int(count or 0)

    async def hear(self, event: OrderPlaced, context: Context) -> None:
        self.heard.append(event.order_id)

    async def effects(self) -> int:
        async with self.engine.connect() as connection:
            return int(await connection.scalar(select(func.count()).select_from(EFFECTS)) or 0)


@pytest.fixture
async def world(store: SqlStore, engine: AsyncEngine) -> World:
    async with engine.begin() as connection:
        await connection.run_sync(_business.create_all)
    return World(store, engine)


async def test_one_commit_covers_the_business_row_and_the_event(world: World) -> None:
    order_id = uuid4()

    async with Harness(world.orders, world.users) as h:
        await h.send(PlaceOrder(order_id=order_id), sender="users")
        await h.settled()
        await heard(world, h, 1)

    assert await world.effects() == 1
    assert world.heard == [order_id]


async def test_a_failed_run_leaves_no_row_and_sends_nothing(world: World) -> None:
    world.failures = [ConnectionError("first"), ConnectionError("second")]

    async with Harness(world.orders, world.users) as h:
        await h.send(PlaceOrder(order_id=uuid4()), sender="users")
        await h.settled()
        between = (await world.effects(), list(world.heard))
        await h.advance(1.0)
        await heard(world, h, 1)

    assert between == (0, [])
    assert await world.effects() == 1
    assert len(world.heard) == 1


async def test_a_buried_message_leaves_nothing_and_its_replay_applies_it_once(world: World) -> None:
    world.failures = [Reject("closed")]

    async with Harness(world.orders, world.users) as h:
        await h.send(PlaceOrder(order_id=uuid4()), sender="users")
        await h.settled()
        buried = (len(h.dead("orders")), await world.effects())
        await h.replay("orders", reason="open again")
        await h.settled()
        await heard(world, h, 1)

        assert h.dead("orders") == []
    assert buried == (1, 0)
    assert await world.effects() == 1


async def test_a_repeated_id_is_applied_once_even_after_a_restart(world: World) -> None:
    message_id, command = uuid4(), PlaceOrder(order_id=uuid4())

    for _ in range(2):
        async with Harness(world.orders, world.users) as h:
            await h.send(command, sender="users", message_id=message_id)
            await h.settled()

    assert await world.effects() == 1


async def test_many_commands_at_once_are_each_applied_once(world: World) -> None:
    commands = [PlaceOrder(order_id=uuid4()) for _ in range(50)]

    async with Harness(world.orders, world.users) as h:
        await asyncio.gather(*(h.send(command, sender="users") for command in commands))
        await h.settled()
        await heard(world, h, 50)

    assert await world.effects() == 50
    assert sorted(world.heard) == sorted(command.order_id for command in commands)


class Grouped:
    """An orders service whose commands share transactions, and what shall happen to some."""

    def __init__(self, world: World, store: SqlStore) -> None:
        self.world = world
        self.poison: set[UUID] = set()
        self.runs: list[UUID] = []
        self.orders = Service("orders", store=store, retry=RetryPolicy(immediate=1, delays_s=(1.0,)))
        self.orders.on_command(PlaceOrder, group=10, group_wait=0.02)(self.place_order)

    async def place_order(self, command: PlaceOrder, context: Context, session: AsyncSession) -> None:
        self.runs.append(command.order_id)
        await session.execute(insert(EFFECTS).values(order_id=command.order_id))
        await context.publish(OrderPlaced(order_id=command.order_id))
        if command.order_id in self.poison:
            raise ConnectionError("poisoned")


async def test_deliveries_that_share_a_transaction_are_each_applied_once(world: World, store: SqlStore) -> None:
    grouped = Grouped(world, store)
    commands = [PlaceOrder(order_id=uuid4()) for _ in range(45)]

    async with Harness(grouped.orders, world.users) as h:
        await asyncio.gather(*(h.send(command, sender="users") for command in commands))
        await h.settled()
        await heard(world, h, 45)

        assert grouped.orders.health.details["counts"] == {"handled": 45}
    assert await world.effects() == 45
    assert sorted(world.heard) == sorted(command.order_id for command in commands)


async def test_one_that_fails_in_a_group_is_buried_alone_and_costs_the_others_no_attempt(
    world: World, store: SqlStore
) -> None:
    grouped = Grouped(world, store)
    commands = [PlaceOrder(order_id=uuid4()) for _ in range(25)]
    grouped.poison = {commands[12].order_id}

    async with Harness(grouped.orders, world.users) as h:
        await asyncio.gather(*(h.send(command, sender="users") for command in commands))
        await h.settled()
        await h.advance(1.0)
        await heard(world, h, 24)
        (letter,) = h.dead("orders")

        assert grouped.orders.health.details["counts"] == {"handled": 24, "retried": 1, "buried": 1}
    assert letter.fault.attempts == 3
    assert grouped.runs.count(commands[12].order_id) == 3
    assert await world.effects() == 24


async def test_a_repeated_id_in_one_group_is_applied_once(world: World, store: SqlStore) -> None:
    grouped = Grouped(world, store)
    message_id, command = uuid4(), PlaceOrder(order_id=uuid4())

    async with Harness(grouped.orders, world.users) as h:
        await asyncio.gather(*(h.send(command, sender="users", message_id=message_id) for _ in range(4)))
        await h.settled()
        await heard(world, h, 1)

    assert await world.effects() == 1


async def test_stopping_ends_a_group_that_still_gathers_and_keeps_its_work(world: World, store: SqlStore) -> None:
    patient = Service("orders", store=store)

    @patient.on_command(PlaceOrder, group=50, group_wait=0.3)
    async def place_order(command: PlaceOrder, context: Context, session: AsyncSession) -> None:
        await session.execute(insert(EFFECTS).values(order_id=command.order_id))

    async with Harness(patient, world.users) as h:
        await asyncio.gather(*(h.send(PlaceOrder(order_id=uuid4()), sender="users") for _ in range(5)))
        while not patient.running:  # noqa: ASYNC110 - nothing tells of the first delivery
            await asyncio.sleep(0)

    effects = await world.effects()
    async with Harness(patient, world.users):
        pass
    # What had begun is kept; what had not is with the broker. Nothing is half done.
    assert 1 <= effects <= 5


async def test_groups_need_a_durable_store_and_fit_into_the_prefetch(store: SqlStore) -> None:
    without, large = Service("orders"), Service("orders", store=store)

    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    without.on_command(PlaceOrder, group=2)(place_order)
    large.on_command(PlaceOrder, group=65)(place_order)

    with pytest.raises(ConfigurationError, match=r"group=2 needs a durable store"):
        await Harness(without).__aenter__()
    with pytest.raises(ConfigurationError, match=r"group=65 is never full with prefetch=64"):
        await Harness(large).__aenter__()


async def test_requests_read_in_a_transaction_too(world: World) -> None:
    async with Harness(world.orders, world.users) as h:
        await h.send(PlaceOrder(order_id=uuid4()), sender="users")
        await h.settled()

        assert await h.request(CountOrders(), sender="users") == 1


async def test_what_a_killed_process_committed_leaves_with_the_next(world: World, store: SqlStore) -> None:
    order_id = uuid4()
    async with Harness(world.orders, world.users) as h:
        await h.send(PlaceOrder(order_id=order_id), sender="users")
        await h.settled()
        await heard(world, h, 1)

    assert await store.outbox("orders").depth() == (0, 0)


async def test_a_store_that_the_lifespan_yields_is_used(engine: AsyncEngine, world: World) -> None:
    @asynccontextmanager
    async def resources(_service: Service) -> AsyncIterator[SqlStore]:
        yield SqlStore(engine)

    seen: list[object] = []
    orders = Service("orders", lifespan=resources)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context, session: AsyncSession) -> None:
        seen.append(session)

    async with Harness(orders) as h:
        await h.send(PlaceOrder(order_id=uuid4()), sender="users")
        await h.settled()

    assert len(seen) == 1


def test_other_databases_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'mysql'"):
        SqlStore(SimpleNamespace(dialect=SimpleNamespace(name="mysql")))  # type: ignore[arg-type]


async def heard(world: World, harness: Harness, count: int) -> None:
    """Wait for the relay, which works in real time."""
    async with asyncio.timeout(LIMIT_S):
        while len(world.heard) < count:  # noqa: ASYNC110 - the end of a whole pipeline, no single event marks it
            await asyncio.sleep(0.01)
    await harness.settled()


async def test_rows_are_counted_by_service_sender_and_time(store: SqlStore) -> None:
    for service, sender in [("orders", "shop"), ("orders", "shop"), ("orders", "users"), ("users", "shop")]:
        key = InboxKey(service, sender, uuid4())
        held = await store.inbox.reserve(key, leaf=b"1" * 32, expires_at_ms=1, lease_s=1)
        await store.inbox.complete(held)

    assert await store.inbox_rows("orders", within_s=3_600.0) == {"shop": 2, "users": 1}
    assert await store.inbox_rows("orders", within_s=-60.0) == {}


@pytest.mark.parametrize(
    ("url", "options", "width"),
    [
        ("postgresql+asyncpg://x@127.0.0.1/x", {"pool_size": 3, "max_overflow": 2}, 5),
        ("postgresql+asyncpg://x@127.0.0.1/x", {"pool_size": 3, "max_overflow": -1}, None),
        ("postgresql+asyncpg://x@127.0.0.1/x", {"poolclass": NullPool}, None),
        ("sqlite+aiosqlite:///x.db", {}, None),
    ],
)
def test_it_knows_how_many_transactions_fit(url: str, options: dict[str, Any], width: int | None) -> None:
    assert SqlStore(create_async_engine(url, **options)).connections == width
