"""What a type checker must admit: handlers that fit their messages, calls that fit their types."""

from datetime import UTC, datetime
from typing import Annotated, assert_type
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from messaging import Context, Depends, Fault, Router
from messaging.core.schedule import Cancellation
from tests.typing.contract import Base, GetOrder, OrderPlaced, OrderView, OutOfStock, PlaceOrder, orders

router = Router()


@orders.on_command(PlaceOrder)
async def place_order(command: PlaceOrder, context: Context) -> None:
    assert_type(context.message_id, UUID)
    assert_type(await context.send(command), UUID)
    assert_type(await context.publish(OrderPlaced(order_id=command.order_id)), UUID)
    assert_type(await context.request(GetOrder(order_id=command.order_id), timeout=1.0), OrderView)
    assert_type(context.resource(dict), dict)  # type: ignore[type-arg]


@router.on_command(PlaceOrder, timeout=5.0)
async def handler_of_a_base(command: Base, context: Context) -> None:
    """A handler may take more than it is given."""


@orders.on_event(OrderPlaced)
async def with_a_default(event: OrderPlaced, context: Context, retries: int = 3) -> None:
    """Parameters with defaults are the handler's own affair."""


def find_rate(command: PlaceOrder) -> float:
    return 1.0


@orders.on_command(PlaceOrder)
async def with_a_resource_and_a_dependency(
    command: PlaceOrder, context: Context, session: AsyncSession, *, rate: Annotated[float, Depends(find_rate)]
) -> None:
    assert_type(session, AsyncSession)
    assert_type(rate, float)


@orders.on_request(GetOrder)
async def answer_with_a_resource(request: GetOrder, context: Context, session: AsyncSession) -> OrderView:
    return OrderView(status="placed")


@orders.on_request(GetOrder)
async def get_order(request: GetOrder, context: Context) -> OrderView:
    if request.order_id.int == 0:
        raise OutOfStock(sku="none")
    return OrderView(status="placed")


@orders.on_fault(PlaceOrder)
async def order_failed(fault: Fault, context: Context) -> None:
    assert_type(fault.reason, str)


async def the_decorated_function_stays_what_it_was(context: Context) -> None:
    order_id = UUID(int=1)
    assert_type(await get_order(GetOrder(order_id=order_id), context), OrderView)
    await place_order(PlaceOrder(order_id=order_id, total_cents=1), context)
    await with_a_default(OrderPlaced(order_id=order_id), context, retries=1)
    await with_a_resource_and_a_dependency(
        PlaceOrder(order_id=order_id, total_cents=1), context, AsyncSession(), rate=2.0
    )


async def a_service_sends() -> None:
    order_id = UUID(int=1)
    assert_type(await orders.send(PlaceOrder(order_id=order_id, total_cents=1), expires_in=60.0), UUID)
    assert_type(await orders.send(PlaceOrder(order_id=order_id, total_cents=1), deliver_at=datetime.now(UTC)), UUID)
    assert_type(await orders.cancel(order_id), Cancellation)
    assert_type(await orders.send_many([PlaceOrder(order_id=order_id, total_cents=1)]), list[UUID])
    assert_type(await orders.publish(OrderPlaced(order_id=order_id)), UUID)
    assert_type(await orders.request(GetOrder(order_id=order_id)), OrderView)


def failures_have_typed_fields(failure: OutOfStock) -> None:
    assert_type(failure.sku, str)
    assert_type(OutOfStock(sku="a", left=1).left, int)
