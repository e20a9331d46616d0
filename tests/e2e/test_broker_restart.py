"""The broker goes away under running services and comes back: they resume by themselves, nothing confirmed is lost."""

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from messaging import MessagingError, RequestTimeoutError, Service
from messaging.cli.broker_node import PrivateNode
from messaging.operators import open_operator
from services.orders.contract import GetOrder, OrderNotFound, PlaceOrder
from services.users.contract import GetUser, RegisterUser, UserNotFound
from tests.support.broker import start_node
from tests.support.landscape import OPERATOR, Landscape
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

# What any recovery is held to (tests/chaos/README.md, I4).
RESUMED_WITHIN_S = 60.0
_PAUSE_S = 0.005


class Customer:
    """Places orders without a pause and remembers which the broker confirmed."""

    def __init__(self, service: Service, user_id: UUID) -> None:
        self._service = service
        self._user_id = user_id
        self.confirmed: list[UUID] = []

    async def shop(self) -> None:
        while True:
            order_id = uuid4()
            order = PlaceOrder(order_id=order_id, user_id=self._user_id, item="Darjeeling", total_cents=1250)
            try:
                await self._service.send(order, timeout=2.0)
            except MessagingError:
                # Not confirmed: nothing is promised about this one.
                continue
            self.confirmed.append(order_id)
            await asyncio.sleep(_PAUSE_S)


async def is_registered(service: Service, user_id: UUID) -> bool:
    try:
        return (await service.request(GetUser(user_id=user_id))).user_id == user_id
    except (UserNotFound, RequestTimeoutError):
        return False


async def is_placed(service: Service, order_id: UUID) -> bool:
    try:
        # On SQLite it waits behind the orders that were taken before it.
        await service.request(GetOrder(order_id=order_id), timeout=15.0)
    except (OrderNotFound, MessagingError):
        return False
    return True


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_services_resume_by_themselves_and_nothing_confirmed_is_lost(
    fragile_landscape: Landscape, node: PrivateNode, end: str
) -> None:
    landscape = fragile_landscape
    await landscape.start("users", "orders")
    user_id = uuid4()
    async with landscape.sender() as sender:
        await sender.send(RegisterUser(user_id=user_id, name="Ada", email="ada@example.org"))
        await eventually(lambda: is_registered(sender, user_id), what="the user was registered")
        customer = Customer(sender, user_id)
        async with asyncio.TaskGroup() as group:
            shopping = group.create_task(customer.shop())
            await eventually(lambda: len(customer.confirmed) >= 100, what="orders were flowing")

            await asyncio.to_thread(node.stop if end == "stop" else node.kill)
            confirmed_before = len(customer.confirmed)
            await asyncio.to_thread(start_node, node)
            back_s = time.monotonic()

            await eventually(
                lambda: len(customer.confirmed) > confirmed_before, RESUMED_WITHIN_S, what="sending resumed"
            )
            first_after = customer.confirmed[confirmed_before]
            await eventually(lambda: is_placed(sender, first_after), RESUMED_WITHIN_S, what="handling resumed")
            resumed_after_s = time.monotonic() - back_s
            shopping.cancel()
        confirmed = set(customer.confirmed)
        await eventually(
            lambda: confirmed <= landscape.placed_orders(),
            120.0,
            what=lambda: f"{len(confirmed - landscape.placed_orders())} of {len(confirmed)} confirmed orders were lost",
        )
        async with open_operator(landscape.settings, OPERATOR) as operator:
            dead = await operator.dead_letters.list("orders")

    assert resumed_after_s <= RESUMED_WITHIN_S
    assert dead == []
