from uuid import uuid4

import pytest

from messaging import Context, Service, Settings, UnroutableError
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, PlaceOrder


@pytest.fixture
def settings() -> Settings:
    return Settings.development(request_timeout_s=2.0, drain_timeout_s=5.0)


def an_orders(settings: Settings, handled: list[int] | None = None) -> Service:
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        if handled is not None:
            handled.append(command.number)

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 0

    return orders


async def test_many_commands_are_sent_together_in_order(settings: Settings) -> None:
    handled: list[int] = []

    async with an_orders(settings, handled), Service("users", settings) as users:
        ids = await users.send_many(PlaceOrder(number=number) for number in range(20))
        await users.settled()

    assert len(set(ids)) == 20
    assert sorted(handled) == list(range(20))


async def test_of_many_commands_those_that_failed_are_told_and_the_others_sent(settings: Settings) -> None:
    handled: list[int] = []

    async with an_orders(settings, handled), Service("users", settings) as users:
        with pytest.raises(ExceptionGroup, match="1 of 3 commands were not sent") as caught:
            await users.send_many([PlaceOrder(number=1), CancelOrder(), PlaceOrder(number=2)])
        await users.settled()

    [error] = caught.value.exceptions
    assert isinstance(error, UnroutableError)
    assert sorted(handled) == [1, 2]


async def test_message_id_timeout_and_life_are_the_callers_to_choose(settings: Settings) -> None:
    message_id = uuid4()

    async with an_orders(settings) as orders:
        assert await orders.send(PlaceOrder(), message_id=message_id, timeout=2.0, expires_in=60.0) == message_id
        assert await orders.publish(OrderPlaced(), message_id=message_id) == message_id
        assert await orders.request(CountOrders(), message_id=uuid4()) == 0
