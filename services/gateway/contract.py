"""What the gateway speaks over HTTP. It owns no messages."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict

from services.orders.contract import Item, TotalCents
from services.users.contract import Email, UserName

__all__ = ["Accepted", "IdempotencyKey", "NewOrder", "NewUser", "Readiness"]


def _unquoted(value: object) -> object:
    return value.strip().strip('"') if isinstance(value, str) else value


# Quotes are what the header's draft standard asks for; most clients send none.
IdempotencyKey = Annotated[UUID, BeforeValidator(_unquoted)]


class NewUser(BaseModel):
    """Body of `POST /users`."""

    model_config = ConfigDict(extra="forbid")

    name: UserName
    email: Email


class NewOrder(BaseModel):
    """Body of `POST /users/{user_id}/orders`."""

    model_config = ConfigDict(extra="forbid")

    item: Item
    total_cents: TotalCents


class Accepted(BaseModel):
    """Answer 202: the command is safe with the broker; the resource appears under `Location` once it is handled."""

    id: UUID
    message_id: UUID


class Readiness(BaseModel):
    """Answer of the health checks."""

    status: str
    problems: tuple[str, ...] = ()
