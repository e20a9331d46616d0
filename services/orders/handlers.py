"""What the orders service does with messages."""

from datetime import UTC, datetime

from messaging import Context, Reject, Router
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


@router.on_command(PlaceOrder)
async def place_order(command: PlaceOrder, context: Context) -> None:
    """Place the order of a registered user and tell everybody.

    A repetition changes nothing and tells them again, which they must bear anyway. An order of an unknown user is
    recorded as rejected and told as such; it becomes a dead letter, so an operator may replay it once the user exists.
    """
    try:
        await _place(command, context)
    except OrderConflictError as error:
        raise Reject(str(error)) from error
    await context.publish(OrderPlaced(**command.model_dump()))


@router.on_request(GetOrder)
async def get_order(request: GetOrder, context: Context) -> OrderView:
    """Answer with the order, or fail with `OrderNotFound`."""
    return await context.resource(OrderStore).get(request.order_id)


@router.on_request(ListOrders)
async def list_orders(request: ListOrders, context: Context) -> list[OrderView]:
    """Answer with a user's orders, latest first."""
    return await context.resource(OrderStore).of_user(request.user_id, limit=request.limit)


async def _place(command: PlaceOrder, context: Context) -> None:
    store = context.resource(OrderStore)
    if await store.is_placed(command):
        return
    try:
        # Trouble of the users service passes through: the retry policy of the service knows which of it may pass.
        await context.request(
            GetUser(user_id=command.user_id), timeout=context.resource(OrdersSettings).users_timeout_s
        )
    except UserNotFound as error:
        reason = RejectReason.UNKNOWN_USER
        await store.reject(command, reason, at=datetime.now(UTC))
        await context.publish(OrderRejected(order_id=command.order_id, user_id=command.user_id, reason=reason))
        raise Reject(f"{reason}: user {command.user_id} is not registered") from error
    await store.place(command, at=datetime.now(UTC))
