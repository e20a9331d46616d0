"""What the users service does with messages."""

from datetime import UTC, datetime

from messaging import Context, Reject, Router
from services.orders.contract import OrderPlaced
from services.users.contract import GetUser, RegisterUser, UserRegistered, UserView
from services.users.store import UserConflictError, UserStore

__all__ = ["count_order", "get_user", "register_user", "router"]

router = Router()


@router.on_command(RegisterUser)
async def register_user(command: RegisterUser, context: Context) -> None:
    """Register the user and tell everybody; a repetition tells them again, which they must bear anyway."""
    try:
        await context.resource(UserStore).register(command, at=datetime.now(UTC))
    except UserConflictError as error:
        raise Reject(str(error)) from error
    await context.publish(UserRegistered(user_id=command.user_id, name=command.name))


@router.on_request(GetUser)
async def get_user(request: GetUser, context: Context) -> UserView:
    """Answer with the user, or fail with `UserNotFound`."""
    return await context.resource(UserStore).get(request.user_id)


@router.on_event(OrderPlaced)
async def count_order(event: OrderPlaced, context: Context) -> None:
    """Remember the order, so that the user's view can tell how many there are."""
    await context.resource(UserStore).count_order(order_id=event.order_id, user_id=event.user_id)
