from datetime import timedelta
from uuid import uuid4

import pytest

from messaging import ConfigurationError, Context, Service
from messaging.testing import Harness
from tests.support.shop import PlaceOrder


def an_orders() -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    return orders


async def test_without_a_store_nothing_can_be_taken_back_and_the_error_says_why() -> None:
    orders = an_orders()
    async with Harness(orders):
        with pytest.raises(ConfigurationError, match=r"waits in a store can be cancelled.*store=SqlStore\(engine\)"):
            await orders.cancel(uuid4())


async def test_without_a_place_to_wait_a_message_is_refused() -> None:
    orders = an_orders()
    async with Harness(orders) as h:
        with pytest.raises(ConfigurationError, match=r"orders.place_order/1 cannot wait .* needs a store"):
            await orders.send(PlaceOrder(), deliver_at=h.now + timedelta(seconds=1))
