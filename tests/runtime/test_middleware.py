"""The onion around every handler."""

from typing import Any

import pytest

from messaging import Context, RemoteError, Service
from messaging.runtime.middleware import Call, Middleware, wrap
from tests.support.shop import CountOrders, PlaceOrder
from tests.support.stage import Stage


def recording(name: str, steps: list[str]) -> Middleware:
    async def layer(message: Any, context: Context, call_next: Call, /) -> Any:
        steps.append(f"{name} in {context.message_name}")
        try:
            return await call_next(message, context)
        finally:
            steps.append(f"{name} out")

    return layer


async def test_the_first_layer_is_the_outermost() -> None:
    steps: list[str] = []
    orders = Service("orders", middleware=[recording("outer", steps), recording("inner", steps)])

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        steps.append("handler")

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

    assert steps == ["outer in orders.place_order", "inner in orders.place_order", "handler", "inner out", "outer out"]


async def test_a_layer_may_change_message_and_answer() -> None:
    async def generous(message: Any, context: Context, call_next: Call, /) -> Any:
        return 2 * await call_next(CountOrders(customer="somebody else"), context)

    orders = Service("orders", middleware=[generous])

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return len(request.customer)

    async with Stage(orders) as stage:
        assert await stage.request(CountOrders(), sender="users") == 2 * len("somebody else")


async def test_a_failing_layer_is_a_failure_of_the_handler() -> None:
    async def strict(message: Any, context: Context, call_next: Call, /) -> Any:
        raise PermissionError("not on Sundays")

    orders = Service("orders", middleware=[strict])

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders) as stage:
        with pytest.raises(RemoteError, match="not on Sundays"):
            await stage.request(CountOrders(), sender="users")


def test_without_layers_the_handler_stands_alone() -> None:
    async def handler(message: Any, context: Context) -> None:
        pass

    assert wrap(handler, ()) is handler
