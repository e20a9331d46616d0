"""What the users service does with messages. Each handler's rows, and what it sends, are one transaction."""

from datetime import UTC, datetime
from typing import Annotated

from messaging import Context, Depends, Reject, Router
from services.orders.contract import OrderPlaced
from services.users.contract import GetUser, RegisterUser, UserRegistered, UserView
from services.users.store import UserConflictError, UserStore

__all__ = ["count_order", "get_user", "register_user", "router"]

router = Router()

_Users = Annotated[UserStore, Depends(UserStore)]


@router.on_command(RegisterUser)
async def register_user(command: RegisterUser, context: Context, users: _Users) -> None:
    """Register the user and tell everybody; a repetition tells them again, which they must bear anyway."""
    try:
        await users.register(command, at=datetime.now(UTC))
    except UserConflictError as error:
        raise Reject(str(error)) from error
    await context.publish(UserRegistered(user_id=command.user_id, name=command.name))


@router.on_request(GetUser)
async def get_user(request: GetUser, context: Context, users: _Users) -> UserView:
    """Answer with the user, or fail with `UserNotFound`."""
    return await users.get(request.user_id)


@router.on_event(OrderPlaced)
async def count_order(event: OrderPlaced, context: Context, users: _Users) -> None:
    """Remember the order, so that the user's view can tell how many there are."""
    await users.count_order(order_id=event.order_id, user_id=event.user_id)
