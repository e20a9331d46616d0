"""The contracts of a little shop, for tests of everything that handles messages."""

from pydantic import BaseModel

from messaging import Command, Event, RemoteFailure, Request

__all__ = [
    "CancelOrder",
    "CountOrders",
    "GetOrder",
    "NewPlaceOrder",
    "OrderPlaced",
    "OrderUnknown",
    "OrderView",
    "PlaceOrder",
    "RenameUser",
]


class OrderView(BaseModel):
    status: str


class OrderUnknown(RemoteFailure, name="orders.order_unknown"):
    number: int


class PlaceOrder(Command, name="orders.place_order"):
    number: int = 1
    note: str = ""


class NewPlaceOrder(Command, name="orders.place_order", version=2):
    number: int = 1


class CancelOrder(Command, name="orders.cancel_order"):
    number: int = 1


class OrderPlaced(Event, name="orders.order_placed"):
    number: int = 1


class GetOrder(Request[OrderView], name="orders.get_order", raises=(OrderUnknown,)):
    number: int = 1


class CountOrders(Request[int], name="orders.count_orders", codec="json"):
    customer: str = ""


class RenameUser(Command, name="users.rename_user"):
    name: str = ""
