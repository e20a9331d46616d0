"""The orders service on a fixed clock, with the real users service or one in trouble beside it."""

import asyncio
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from messaging import Context, Service
from messaging.testing import Harness
from services.orders.contract import (
    GetOrder,
    ListOrders,
    OrderNotFound,
    OrderPlaced,
    OrderRejected,
    OrderStatus,
    PlaceOrder,
    RejectReason,
)
from services.orders.handlers import place_order
from services.orders.service import create
from services.orders.settings import OrdersSettings
from services.orders.store import OrderStore
from services.users.contract import GetUser, RegisterUser, UserNotFound, UserView
from services.users.handlers import get_user
from services.users.service import create as create_users
from services.users.settings import UsersSettings

WHOLE_LADDER_S = 800.0


@pytest.fixture
def orders(tmp_path: Path) -> Service:
    # Real seconds: no test of these waits for an answer that does not come.
    return create(own=OrdersSettings(database_url=f"sqlite:///{tmp_path / 'orders.db'}", users_timeout_s=30.0))


@pytest.fixture
def hasty_orders(tmp_path: Path) -> Service:
    return create(own=OrdersSettings(database_url=f"sqlite:///{tmp_path / 'hasty.db'}", users_timeout_s=0.05))


@pytest.fixture
def users(tmp_path: Path) -> Service:
    return create_users(own=UsersSettings(database_url=f"sqlite:///{tmp_path / 'users.db'}"))


@pytest.fixture
def gateway() -> Service:
    return Service("gateway")


def tea(user_id: UUID) -> PlaceOrder:
    return PlaceOrder(order_id=uuid4(), user_id=user_id, item="Darjeeling", total_cents=1250)


def placed(order: PlaceOrder) -> OrderPlaced:
    return OrderPlaced(**order.model_dump())


async def register(h: Harness, user_id: UUID | None = None) -> UUID:
    user_id = user_id or uuid4()
    await h.send(RegisterUser(user_id=user_id, name="Ada", email="ada@example.org"), sender="gateway")
    await h.settled()
    h.published.clear()
    return user_id


async def test_an_order_of_a_registered_user_is_placed_and_told(
    orders: Service, users: Service, gateway: Service
) -> None:
    async with Harness(orders, users, gateway) as h:
        order = tea(await register(h))
        await h.send(order, sender="gateway")
        await h.settled()
        view = await h.request(GetOrder(order_id=order.order_id), sender="gateway")
        listed = await h.request(ListOrders(user_id=order.user_id), sender="gateway")

        assert h.published == [placed(order)]
        assert h.dead("orders") == []

    assert (view.status, view.item, view.total_cents) == (OrderStatus.PLACED, "Darjeeling", 1250)
    assert listed == [view]


async def test_an_unknown_order_is_a_typed_failure_at_the_caller(orders: Service, gateway: Service) -> None:
    order_id = uuid4()

    async with Harness(orders, gateway) as h:
        with pytest.raises(OrderNotFound) as caught:
            await h.request(GetOrder(order_id=order_id), sender="gateway")

    assert caught.value.order_id == order_id


async def test_an_order_of_an_unknown_user_is_rejected_at_once_and_told(
    orders: Service, users: Service, gateway: Service
) -> None:
    order = tea(uuid4())

    async with Harness(orders, users, gateway) as h:
        await h.send(order, sender="gateway")
        await h.settled()
        view = await h.request(GetOrder(order_id=order.order_id), sender="gateway")

        rejected = OrderRejected(order_id=order.order_id, user_id=order.user_id, reason=RejectReason.UNKNOWN_USER)
        assert h.published == [rejected]
        assert h.dead("orders") == []

    assert (view.status, view.reason) == (OrderStatus.REJECTED, RejectReason.UNKNOWN_USER)


async def test_a_rejected_order_is_placed_by_a_later_command_once_the_user_exists(
    orders: Service, users: Service, gateway: Service
) -> None:
    order = tea(uuid4())

    async with Harness(orders, users, gateway) as h:
        await h.send(order, sender="gateway")
        await h.settled()
        await register(h, order.user_id)
        await h.send(order, sender="gateway")
        await h.settled()
        view = await h.request(GetOrder(order_id=order.order_id), sender="gateway")

        assert h.published == [placed(order)]

    assert (view.status, view.reason) == (OrderStatus.PLACED, None)


async def test_a_failure_after_the_rejection_takes_back_what_was_recorded_and_told(
    orders: Service, users: Service, gateway: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tea(uuid4())
    recorded = OrderStore.reject

    async def reject_and_break(self: OrderStore, order: PlaceOrder, reason: RejectReason, *, at: datetime) -> None:
        await recorded(self, order, reason, at=at)
        raise ConnectionError("the line is cut")

    async with Harness(orders, users, gateway) as h:
        monkeypatch.setattr(OrderStore, "reject", reject_and_break)
        await h.send(order, sender="gateway")
        await h.settled()
        with pytest.raises(OrderNotFound):
            await h.request(GetOrder(order_id=order.order_id), sender="gateway")

        assert h.published == []


async def test_a_failed_order_is_a_dead_letter_and_its_replay_places_it_once(
    orders: Service, users: Service, gateway: Service
) -> None:
    async with Harness(orders, users, gateway) as h:
        order = tea(await register(h))
        with h.failing(get_user, ConnectionError, times=7):
            await h.send(order, sender="gateway")
            await h.advance(WHOLE_LADDER_S)
        (letter,) = h.dead("orders")
        report = await h.replay("orders", reason="users is well again")
        await h.settled()
        view = await h.request(GetOrder(order_id=order.order_id), sender="gateway")

        assert h.published == [placed(order)]
        assert h.dead("orders") == []

    assert letter.fault.attempts == 7
    assert (report.replayed, report.failed) == (1, 0)
    assert view.status == OrderStatus.PLACED


async def test_a_repeated_command_places_once_and_does_not_ask_again(
    orders: Service, users: Service, gateway: Service
) -> None:
    async with Harness(orders, users, gateway) as h:
        order = tea(await register(h))
        for _ in range(2):
            await h.send(order, sender="gateway")
            await h.settled()
        listed = await h.request(ListOrders(user_id=order.user_id), sender="gateway")

        assert len(h.calls(place_order)) == 2
        assert h.calls(get_user) == [GetUser(user_id=order.user_id)]
        assert h.published == [placed(order), placed(order)]
        assert h.dead("orders") == []

    assert len(listed) == 1


async def test_another_order_under_the_same_id_is_rejected_at_once(
    orders: Service, users: Service, gateway: Service
) -> None:
    async with Harness(orders, users, gateway) as h:
        order = tea(await register(h))
        await h.send(order, sender="gateway")
        await h.settled()
        await h.send(order.model_copy(update={"total_cents": 1}), sender="gateway")
        await h.settled()
        (letter,) = h.dead("orders")

        assert h.published == [placed(order)]

    assert letter.fault.attempts == 1
    assert letter.fault.reason == f"order {order.order_id} exists with other content"


async def test_trouble_of_the_users_service_is_waited_out(orders: Service, users: Service, gateway: Service) -> None:
    async with Harness(orders, users, gateway) as h:
        order = tea(await register(h))
        with h.failing(get_user, ConnectionError, times=3):
            await h.send(order, sender="gateway")
            await h.advance(10.0)

        assert len(h.calls(place_order)) == 4
        assert h.published == [placed(order)]
        assert h.dead("orders") == []


async def test_answers_that_come_too_late_are_waited_for(hasty_orders: Service, gateway: Service) -> None:
    slow = Service("users")

    @slow.on_request(GetUser)
    async def too_late(request: GetUser, context: Context) -> UserView:
        # Deadlines of requests are real seconds: this one is longer than the orders service's patience.
        await asyncio.sleep(0.1)
        raise UserNotFound(user_id=request.user_id)

    async with Harness(hasty_orders, slow, gateway) as h:
        order = tea(uuid4())
        await h.send(order, sender="gateway")
        await h.advance(WHOLE_LADDER_S)
        (letter,) = h.dead("orders")

        assert h.published == []

    assert (letter.fault.error, letter.fault.attempts) == ("RequestTimeoutError", 7)


async def test_a_users_service_that_never_ran_is_waited_for(orders: Service, gateway: Service) -> None:
    async with Harness(orders, Service("users"), gateway) as h:
        order = tea(uuid4())
        await h.send(order, sender="gateway")
        await h.settled()
        early = h.dead("orders")
        await h.advance(WHOLE_LADDER_S)
        (letter,) = h.dead("orders")

    assert early == []
    assert (letter.fault.error, letter.fault.attempts) == ("UnroutableError", 7)


@pytest.mark.postgres
async def test_on_postgresql_rows_inbox_and_outbox_are_one_transaction_too(postgres_url: str, gateway: Service) -> None:
    orders = create(own=OrdersSettings(database_url=postgres_url, users_timeout_s=30.0))
    users = create_users(own=UsersSettings(database_url=postgres_url))

    async with Harness(orders, users, gateway) as h:
        user_id = uuid4()
        await h.send(RegisterUser(user_id=user_id, name="Ada", email="ada@example.org"), sender="gateway")
        await h.settled()
        placed_one, rejected_one = tea(user_id), tea(uuid4())
        for order in (placed_one, rejected_one):
            await h.send(order, sender="gateway")
        await h.settled()
        views = [
            await h.request(GetOrder(order_id=order.order_id), sender="gateway") for order in (placed_one, rejected_one)
        ]

        assert placed(placed_one) in h.published
        assert h.dead("orders") == []

    assert [view.status for view in views] == [OrderStatus.PLACED, OrderStatus.REJECTED]
