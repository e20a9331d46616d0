"""Messages of the orders service: the only file of it that other services import."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from messaging import Command, Event, RemoteFailure, Request

__all__ = [
    "GetOrder",
    "Item",
    "ListOrders",
    "OrderNotFound",
    "OrderPlaced",
    "OrderRejected",
    "OrderStatus",
    "OrderView",
    "PlaceOrder",
    "RejectReason",
    "TotalCents",
]

# NUL is valid Unicode that PostgreSQL cannot store.
Item = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
TotalCents = Annotated[int, Field(gt=0, le=1_000_000_000_000)]


class OrderStatus(StrEnum):
    """What became of an order."""

    PLACED = "placed"
    REJECTED = "rejected"


class RejectReason(StrEnum):
    """Why an order was rejected."""

    UNKNOWN_USER = "unknown_user"


class PlaceOrder(Command, name="orders.place_order"):
    """Place an order under an id that the sender chose, so that a repetition is harmless."""

    order_id: UUID
    user_id: UUID
    item: Item
    total_cents: TotalCents


class OrderPlaced(Event, name="orders.order_placed"):
    """An order is placed. May be published twice; `order_id` tells."""

    order_id: UUID
    user_id: UUID
    item: str
    total_cents: int


class OrderRejected(Event, name="orders.order_rejected"):
    """An order cannot be placed as things are; the same order may be placed later. May be published twice."""

    order_id: UUID
    user_id: UUID
    reason: RejectReason


class OrderView(BaseModel):
    """An order and what became of it. `reason` is set when it was rejected."""

    model_config = ConfigDict(frozen=True)

    order_id: UUID
    user_id: UUID
    item: str
    total_cents: int
    status: OrderStatus
    reason: RejectReason | None = None
    changed_at: datetime


class OrderNotFound(RemoteFailure, name="orders.order_not_found"):
    """No order is known under this id (yet)."""

    order_id: UUID


class GetOrder(Request[OrderView], name="orders.get_order", raises=(OrderNotFound,)):
    """Ask for one order."""

    order_id: UUID


class ListOrders(Request[list[OrderView]], name="orders.list_orders"):
    """Ask for the orders of a user, latest first."""

    user_id: UUID
    limit: int = Field(default=50, ge=1, le=500)
