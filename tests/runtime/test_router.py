"""Which function handles which message; what is refused at import; what topology is told."""

import math
from typing import Any

import pytest

from messaging import Command, ConfigurationError, Context, Fault, RetryPolicy, Router, Service
from messaging.core.envelope import Kind
from messaging.errors import UnknownMessageError
from messaging.runtime.router import FIRST_RUNG_MS, GROUP_WAIT_S
from messaging.stores.base import Grouping
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, CountOrders, GetOrder, NewPlaceOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.stage import Stage


class Abstract(Command):
    number: int


async def handle(message: Any, context: Context) -> None:
    pass


async def handle_again(message: Any, context: Context) -> None:
    pass


def test_each_decorator_returns_the_function_unchanged() -> None:
    router = Router()

    async def answer(request: GetOrder, context: Context) -> OrderView:
        return OrderView(status="")

    assert router.on_command(PlaceOrder)(handle) is handle
    assert router.on_event(OrderPlaced)(handle) is handle
    assert router.on_fault(PlaceOrder)(handle) is handle
    assert router.on_request(GetOrder)(answer) is answer
    assert [handler.kind for handler in router.handlers] == [Kind.COMMAND, Kind.EVENT, Kind.FAULT, Kind.REQUEST]


def test_a_second_handler_for_a_message_is_refused_and_both_are_named() -> None:
    router = Router()
    router.on_command(PlaceOrder)(handle)

    with pytest.raises(ConfigurationError, match=r"orders\.place_order/1 has a handler already.*handle_again"):
        router.on_command(PlaceOrder)(handle_again)


def test_two_versions_are_two_messages() -> None:
    router = Router()
    router.on_command(PlaceOrder)(handle)
    router.on_command(NewPlaceOrder)(handle_again)

    assert router.resolve(Kind.COMMAND, "orders.place_order", 1).call is handle
    assert router.resolve(Kind.COMMAND, "orders.place_order", 2).call is handle_again


def test_what_nobody_handles_is_unknown() -> None:
    with pytest.raises(UnknownMessageError, match=r"orders\.place_order/3 in this replica"):
        Router().resolve(Kind.COMMAND, "orders.place_order", 3)


def test_a_class_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_command takes a Command class"):
        Router().on_command(OrderPlaced)(handle)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="on_event takes a Event class"):
        Router().on_event(PlaceOrder)(handle)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="on_request takes a Request class"):
        Router().on_request(PlaceOrder)(handle)  # type: ignore[misc, arg-type]
    with pytest.raises(ConfigurationError, match="on_fault takes a Command class"):
        Router().on_fault(OrderPlaced)(handle)  # type: ignore[type-var]


@pytest.mark.parametrize("thing", [int, "orders.place_order", PlaceOrder()])
def test_what_is_no_message_class_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_command takes a Command class"):
        Router().on_command(thing)(handle)


def test_a_decorator_without_its_class_is_refused() -> None:
    function: Any = handle

    for decorate in (Router().on_command, Router().on_event, Router().on_request, Router().on_fault):
        with pytest.raises(ConfigurationError, match="class, not <function handle"):
            decorate(function)


def test_an_abstract_class_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Abstract is abstract"):
        Router().on_command(Abstract)(handle)


def test_a_plain_function_is_refused() -> None:
    def handle_plainly(message: PlaceOrder, context: Context) -> None:
        pass

    with pytest.raises(ConfigurationError, match="must be an async function"):
        Router().on_command(PlaceOrder)(handle_plainly)  # type: ignore[arg-type]


def test_what_a_handler_takes_is_looked_at_when_it_is_registered() -> None:
    async def asking(message: PlaceOrder, context: Context, count: int) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"asking: parameter 'count': int does not say which"):
        Router().on_command(PlaceOrder)(asking)


def test_a_handler_can_be_planned_with_overrides() -> None:
    router = Router()

    @router.on_fault(PlaceOrder)
    async def failed(fault: Fault, context: Context, logs: Logs) -> None:
        pass

    [handler] = router.handlers

    assert handler.overridden({}) is handler.plan
    assert Logs in handler.plan.resources
    assert Logs not in handler.overridden({Logs: Logs}).resources


def test_parameters_with_defaults_are_fine() -> None:
    async def with_more(message: PlaceOrder, context: Context, size: int = 3, *rest: int, **named: int) -> None:
        pass

    router = Router()
    router.on_command(PlaceOrder)(with_more)  # type: ignore[arg-type]

    assert router.find(Kind.COMMAND, "orders.place_order", 1) is not None


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.inf, math.nan])
def test_a_timeout_is_above_zero_and_finite(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="must be above 0 seconds"):
        Router().on_command(PlaceOrder, timeout=timeout)(handle)


def test_a_group_is_known_by_its_handler_size_and_patience() -> None:
    router = Router()
    router.on_command(PlaceOrder, group=10)(handle)
    router.on_event(OrderPlaced, group=5, group_wait=0.5)(handle_again)

    assert [handler.grouping for handler in router.handlers] == [
        Grouping(name=f"{__name__}.handle", size=10, wait_s=GROUP_WAIT_S),
        Grouping(name=f"{__name__}.handle_again", size=5, wait_s=0.5),
    ]


@pytest.mark.parametrize(("size", "wait_s"), [(1, 0.01), (0, 0.01), (10, 0.0), (10, 1.5)])
def test_a_group_has_members_and_little_patience(size: int, wait_s: float) -> None:
    with pytest.raises(ConfigurationError, match="a group has at least 2 deliveries"):
        Router().on_command(PlaceOrder, group=size, group_wait=wait_s)(handle)


def test_a_handler_is_named_by_where_it_stands() -> None:
    router = Router()
    router.on_command(PlaceOrder)(handle)

    [handler] = router.handlers

    assert handler.name == f"{__name__}.handle"


def test_subscriptions_tell_what_is_handled_and_every_rung_in_use() -> None:
    router = Router()
    router.on_command(PlaceOrder, retry=RetryPolicy(delays_s=(2.0, 9.0)))(handle)
    router.on_event(OrderPlaced)(handle)
    router.on_fault(CancelOrder)(handle)

    async def count(request: CountOrders, context: Context) -> int:
        return 0

    router.on_request(CountOrders)(count)

    found = router.subscriptions_with(RetryPolicy(delays_s=(5.0,)))

    assert found.commands == {("orders.place_order", 1)}
    assert found.events == {("orders.order_placed", 1)}
    assert found.requests == {("orders.count_orders", 1)}
    assert found.faults
    assert found.rungs_ms == (FIRST_RUNG_MS, 2_000, 5_000, 9_000)


def test_a_client_needs_no_rungs() -> None:
    found = Router().subscriptions_with(RetryPolicy())

    assert found.is_empty
    assert found.rungs_ms == ()


async def test_a_service_includes_the_handlers_of_a_router() -> None:
    router, orders = Router(), Service("orders")
    router.on_command(PlaceOrder)(handle)

    assert orders.include(router) is orders

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(number=2), sender="users")
        await stage.settled()
        assert stage.calls(handle) == [PlaceOrder(number=2)]


def test_a_router_that_handles_the_same_message_is_refused() -> None:
    router, orders = Router(), Service("orders")
    router.on_command(PlaceOrder)(handle)
    orders.on_command(PlaceOrder)(handle_again)

    with pytest.raises(ConfigurationError, match="would be a second"):
        orders.include(router)


async def test_on_fault_hears_of_its_own_commands() -> None:
    router = Router()

    @router.on_fault(PlaceOrder)
    async def failed(fault: Fault, context: Context) -> None:
        pass

    assert router.resolve(Kind.FAULT, "orders.place_order", 1).call is failed
