"""What was decided at the start is what a message finds."""

from typing import Any

import pytest

from messaging import Context, RetryPolicy, Router
from messaging.core.envelope import Kind
from messaging.errors import UnknownMessageError
from messaging.runtime.middleware import Call, Middleware
from messaging.runtime.router import Handler
from messaging.runtime.ways import LEASE_SLACK_S, Ways
from tests.support.shop import CancelOrder, CountOrders, PlaceOrder

POLICY = RetryPolicy(immediate=2)


def own_call(handler: Handler) -> Call:
    return handler.plan.call


def ways_of(router: Router, *middleware: Middleware) -> Ways:
    return Ways(router, around=own_call, middleware=middleware, retry=POLICY, timeout_s=10.0)


def a_router() -> Router:
    router = Router()

    @router.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    @router.on_command(CancelOrder, timeout=3.0, retry=RetryPolicy(immediate=0))
    async def cancel_order(command: CancelOrder, context: Context) -> None: ...

    @router.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 7

    return router


def test_a_handler_that_says_nothing_has_the_services_times() -> None:
    way = ways_of(a_router()).resolve(Kind.COMMAND, "orders.place_order", 1)

    assert way.timeout_s == 10.0
    assert way.lease_s == 3 * 10.0 + LEASE_SLACK_S
    assert way.handler.model is PlaceOrder
    assert not way.is_request


def test_a_handler_that_says_so_has_its_own() -> None:
    way = ways_of(a_router()).resolve(Kind.COMMAND, "orders.cancel_order", 1)

    assert (way.timeout_s, way.lease_s) == (3.0, 3.0 + LEASE_SLACK_S)


def test_only_requests_are_answered() -> None:
    way = ways_of(a_router()).find(Kind.REQUEST, "orders.count_orders", 1)

    assert way is not None
    assert way.is_request


def test_what_nobody_handles_here_has_no_way() -> None:
    ways = ways_of(a_router())

    assert ways.find(Kind.COMMAND, "orders.place_order", 2) is None
    with pytest.raises(UnknownMessageError, match=r"orders\.place_order/2 in this replica"):
        ways.resolve(Kind.COMMAND, "orders.place_order", 2)


async def test_a_call_goes_through_the_middleware() -> None:
    async def doubled(message: Any, context: Context, call_next: Call) -> Any:
        return 2 * await call_next(message, context)

    way = ways_of(a_router(), doubled).resolve(Kind.REQUEST, "orders.count_orders", 1)

    assert await way.call(CountOrders(), None) == 14  # type: ignore[arg-type]
