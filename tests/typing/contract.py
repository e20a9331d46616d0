"""The messages that the other files of this folder handle and send."""

from uuid import UUID

from pydantic import BaseModel

from messaging import Command, Event, RemoteFailure, Request, Service, Settings

__all__ = ["Base", "GetOrder", "OrderPlaced", "OrderView", "OutOfStock", "PlaceOrder", "orders"]


class OrderView(BaseModel):
    status: str


class OutOfStock(RemoteFailure, name="orders.out_of_stock"):
    sku: str
    left: int = 0


class Base(Command):
    order_id: UUID


class PlaceOrder(Base, name="orders.place_order"):
    total_cents: int


class OrderPlaced(Event, name="orders.order_placed"):
    order_id: UUID


class GetOrder(Request[OrderView], name="orders.get_order", raises=(OutOfStock,)):
    order_id: UUID


orders = Service("orders", Settings.development())
