"""Whole services that send for later over the durable store, on the harness's clock."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging import Command, ConfigurationError, Context, Event, RetryPolicy, Service
from messaging.core.topology import Subscriptions
from messaging.stores.sql import SqlStore
from messaging.stores.sql.schema import SCHEDULE
from messaging.testing import Harness
from tests.support.waiting import LIMIT_S


class PlaceOrder(Command, name="orders.place_order"):
    remind_in_s: float
    fails: int = 0


class Remind(Command, name="orders.remind"):
    number: int = 1


class PayOrder(Command, name="orders.pay_order"):
    reminder: UUID


class OrderStale(Event, name="orders.order_stale"):
    pass


class World:
    """Orders that remind themselves, unless they are paid first."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.orders = Service("orders", store=store)
        self.users = Service("users")
        self.reminders: list[UUID] = []
        self.told: list[str] = []
        self.reminded: list[datetime] = []
        self.causes: list[UUID | None] = []
        self.stale: list[datetime] = []
        self.failures = 0
        self.orders.on_command(PlaceOrder)(self.place_order)
        self.orders.on_command(PayOrder)(self.pay_order)
        self.orders.on_command(Remind)(self.remind)
        self.users.on_event(OrderStale)(self.hear)
        self.h = Harness(self.orders, self.users)

    async def place_order(self, command: PlaceOrder, context: Context) -> None:
        deliver_at = self.h.now + timedelta(seconds=command.remind_in_s)
        self.reminders.append(await context.send(Remind(), deliver_at=deliver_at))
        await context.publish(OrderStale(), deliver_at=deliver_at + timedelta(seconds=10))
        if self.failures:
            self.failures -= 1
            raise ConnectionError

    async def pay_order(self, command: PayOrder, context: Context) -> None:
        self.told.append(await context.cancel(command.reminder))

    async def remind(self, command: Remind, context: Context) -> None:
        self.reminded.append(self.h.now)
        self.causes.append(context.envelope.causation_id)

    async def hear(self, event: OrderStale, context: Context) -> None:
        self.stale.append(self.h.now)


@pytest.fixture
def world(store: SqlStore) -> World:
    return World(store)


async def test_what_a_handler_sends_for_later_comes_at_its_time_and_names_its_cause(world: World) -> None:
    async with world.h as h:
        began = h.now
        message_id = await h.send(PlaceOrder(remind_in_s=30), sender="users")
        await h.advance(29.9)
        early = list(world.reminded)
        await h.advance(60)

    assert early == []
    assert world.reminded == [began + timedelta(seconds=30)]
    assert world.stale == [began + timedelta(seconds=40)]
    assert world.causes == [message_id]


async def test_months_are_no_trouble_because_the_life_begins_when_it_is_sealed(world: World) -> None:
    async with world.h as h:
        await h.send(PlaceOrder(remind_in_s=90 * 24 * 3600), sender="users")
        await h.advance(100 * 24 * 3600)

        assert len(world.reminded) == 1
        assert h.dead("orders") == []


async def test_a_handler_that_fails_leaves_nothing_on_the_schedule(world: World) -> None:
    world.failures = 1
    async with world.h as h:
        await h.send(PlaceOrder(remind_in_s=5), sender="users")
        await h.advance(60)

    assert len(world.reminders) == 2
    assert len(world.reminded) == 1


async def test_what_was_cancelled_in_time_never_comes(world: World) -> None:
    async with world.h as h:
        await h.send(PlaceOrder(remind_in_s=5), sender="users")
        await h.settled()
        [reminder] = world.reminders
        await h.send(PayOrder(reminder=reminder), sender="users")
        await h.advance(60)
        later = await world.orders.cancel(reminder)

    assert (world.told, world.reminded, later) == (["cancelled"], [], "cancelled")


async def test_the_wrong_way_to_send_inside_a_handler_ends_with_the_right_one_on_sqlite(
    world: World, engine: AsyncEngine
) -> None:
    # PostgreSQL answers, if it takes its time; SQLite does not.
    timeout_s = 0.3 if engine.dialect.name == "sqlite" else LIMIT_S

    async def pay_order(command: PayOrder, context: Context) -> None:
        deliver_at = world.h.now + timedelta(seconds=5)
        await world.orders.send(Remind(), deliver_at=deliver_at, timeout=timeout_s)

    orders = world.orders
    orders._handlers.clear()
    orders.on_command(PayOrder, retry=RetryPolicy(immediate=0, delays_s=()))(pay_order)
    async with world.h as h:
        await h.send(PayOrder(reminder=uuid4()), sender="users")
        await h.settled()
        reasons = [letter.fault.reason for letter in h.dead("orders")]

    if engine.dialect.name == "sqlite":
        # One writer: the handler's own transaction is in the way.
        [reason] = reasons
        assert "inside a handler use context.send, in its transaction" in reason
    else:
        assert reasons == []


async def test_what_was_sent_cannot_be_cancelled(world: World) -> None:
    async with world.h as h:
        await h.send(PlaceOrder(remind_in_s=5), sender="users")
        await h.advance(6)

        assert await world.orders.cancel(world.reminders[0]) == "sent"
        assert len(world.reminded) == 1


async def test_a_service_sends_for_later_outside_of_handlers_too(world: World) -> None:
    async with world.h as h:
        kept = await world.orders.send(Remind(), deliver_at=h.now + timedelta(seconds=5))
        gone = await world.orders.publish(OrderStale(), deliver_at=h.now + timedelta(seconds=5))
        told = await world.orders.cancel(gone)
        sent_before = list(h.sent)
        await h.advance(5)

        assert sent_before == []
        assert h.sent == [Remind()]
        assert kept != gone
    assert (told, len(world.reminded), world.stale) == ("cancelled", 1, [])


async def test_what_has_passed_is_sent_at_once(world: World) -> None:
    async with world.h as h:
        await world.orders.send(Remind(), deliver_at=h.now - timedelta(days=1))
        await h.settled()

        assert len(world.reminded) == 1
        assert await world.store.schedule("orders").waiting(limit=10) == []


async def test_a_schedule_outlives_its_process(world: World, store: SqlStore) -> None:
    async with world.h as h:
        await h.send(PlaceOrder(remind_in_s=5), sender="users")
        await h.settled()
    successor = World(store)

    async with successor.h as h:
        await h.advance(6)

    assert (len(world.reminded), len(successor.reminded)) == (0, 1)


async def test_what_may_not_be_sent_is_refused_when_it_is_put_on_the_schedule(world: World) -> None:
    class Foreign(Event, name="billing.invoice_sent"):
        pass

    class Unzoned(Command, name="orders.remind", version=2):
        pass

    async with world.h as h:
        # Somebody subscribes, or there would be nobody to refuse it to.
        h._trust.join("users", Subscriptions(events=frozenset({("billing.invoice_sent", 1)})))
        with pytest.raises(ConfigurationError, match="sender, audience and routing key do not fit"):
            await world.orders.publish(Foreign(), deliver_at=h.now + timedelta(seconds=5))
        with pytest.raises(ConfigurationError, match="no time zone"):
            await world.orders.send(Unzoned(), deliver_at=datetime(2030, 1, 1))

        assert await world.store.schedule("orders").waiting(limit=10) == []


async def test_a_row_that_cannot_be_read_waits_visibly_and_stops_nobody(world: World, engine: AsyncEngine) -> None:
    async with world.h as h:
        poison = await world.orders.send(Remind(), deliver_at=h.now + timedelta(seconds=5))
        async with engine.begin() as connection:
            await connection.execute(update(SCHEDULE).where(SCHEDULE.c.message_id == poison).values(draft=b"nonsense"))
        await world.orders.send(Remind(), deliver_at=h.now + timedelta(seconds=5))
        await h.advance(8)

    [row] = await world.store.schedule("orders").waiting(limit=10)
    assert (row.message_id, row.problem) == (poison, "the row holds no scheduled message (ExtraData)")
    assert row.attempts >= 2
    assert len(world.reminded) == 1
