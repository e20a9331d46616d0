"""What the orders service does with messages. Each handler's rows, and what it sends, are one transaction."""

from datetime import UTC, datetime
from typing import Annotated

from messaging import Context, Depends, Reject, Router
from services.orders.contract import (
    GetOrder,
    ListOrders,
    OrderPlaced,
    OrderRejected,
    OrderView,
    PlaceOrder,
    RejectReason,
)
from services.orders.settings import OrdersSettings
from services.orders.store import OrderConflictError, OrderStore
from services.users.contract import GetUser, UserNotFound

__all__ = ["get_order", "list_orders", "place_order", "router"]

router = Router()

_Orders = Annotated[OrderStore, Depends(OrderStore)]


@router.on_command(PlaceOrder)
async def place_order(command: PlaceOrder, context: Context, orders: _Orders, settings: OrdersSettings) -> None:
    """Place the order of a registered user, or record that it is rejected, and tell everybody.

    A rejection is an outcome, not a failure: it is committed and told, and the same order may be placed by a later
    command. Sent again under another message id, an order changes nothing and is told again, which others must bear
    anyway. Another order under the same id is a failure that no retry mends.
    """
    try:
        outcome = await _decide(command, context, orders, settings)
    except OrderConflictError as error:
        raise Reject(str(error)) from error
    await context.publish(outcome)


@router.on_request(GetOrder)
async def get_order(request: GetOrder, context: Context, orders: _Orders) -> OrderView:
    """Answer with the order, or fail with `OrderNotFound`."""
    return await orders.get(request.order_id)


@router.on_request(ListOrders)
async def list_orders(request: ListOrders, context: Context, orders: _Orders) -> list[OrderView]:
    """Answer with a user's orders, latest first."""
    return await orders.of_user(request.user_id, limit=request.limit)


async def _decide(
    command: PlaceOrder, context: Context, orders: OrderStore, settings: OrdersSettings
) -> OrderPlaced | OrderRejected:
    placed = OrderPlaced(**command.model_dump())
    if await orders.is_placed(command):
        return placed
    try:
        # Trouble of the users service passes through: the retry policy of the service knows which of it may pass.
        await context.request(GetUser(user_id=command.user_id), timeout=settings.users_timeout_s)
    except UserNotFound:
        reason = RejectReason.UNKNOWN_USER
        await orders.reject(command, reason, at=datetime.now(UTC))
        return OrderRejected(order_id=command.order_id, user_id=command.user_id, reason=reason)
    await orders.place(command, at=datetime.now(UTC))
    return placed
