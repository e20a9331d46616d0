"""Messages of the users service: the only file of it that other services import."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from messaging import Command, Event, RemoteFailure, Request

__all__ = ["Email", "GetUser", "RegisterUser", "UserName", "UserNotFound", "UserRegistered", "UserView"]

# NUL is valid Unicode that PostgreSQL cannot store.
UserName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
# Only a shape: whether an address exists is known once a mail has arrived.
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]


class RegisterUser(Command, name="users.register_user"):
    """Register a user under an id that the sender chose, so that a repetition is harmless."""

    user_id: UUID
    name: UserName
    email: Email


class UserRegistered(Event, name="users.user_registered"):
    """A user is registered. May be published twice; `user_id` tells."""

    user_id: UUID
    name: str


class UserView(BaseModel):
    """What others may see of a user.

    Attributes:
        orders_placed: How many orders of this user the service has heard of.
    """

    model_config = ConfigDict(frozen=True)

    user_id: UUID
    name: str
    email: str
    registered_at: datetime
    orders_placed: int = Field(default=0, ge=0)


class UserNotFound(RemoteFailure, name="users.user_not_found"):
    """No user is registered under this id."""

    user_id: UUID


class GetUser(Request[UserView], name="users.get_user", raises=(UserNotFound,)):
    """Ask for one user."""

    user_id: UUID
