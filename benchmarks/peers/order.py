"""What every program of the comparison sends, answers and checks: one pydantic model, 477 bytes as JSON.

Its fields are of fixed width, so all orders have one size; `note` is as long as it takes for another size.
"""

from typing import Final
from uuid import UUID

from pydantic import BaseModel

__all__ = ["ORDER_BYTES", "GetOrder", "Line", "Order", "order", "order_fields", "orders"]

ORDER_BYTES: Final = 477
# Programs send these in turn: making models costs every user the same, and is left out of the measured stretch.
MADE_BEFOREHAND: Final = 64
LINES: Final = 3


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int
    price_cents: int


class Order(BaseModel):
    """An order of a shop."""

    order_id: UUID
    customer: str
    email: str
    currency: str
    total_cents: int
    lines: list[Line]
    note: str


class GetOrder(BaseModel):
    """The question for an order."""

    order_id: UUID


def order_fields(number: int, size_bytes: int = ORDER_BYTES) -> dict[str, object]:
    """Return the fields of an order that takes `size_bytes` as JSON; the smallest there is if it takes more.

    Args:
        number: Makes orders differ.
        size_bytes: Length of its JSON in bytes.
    """
    fields: dict[str, object] = {
        "order_id": UUID(int=0x1000_0000_0000_4000_8000_0000_0000_0000 + number),
        "customer": f"customer-{number:08d}",
        "email": f"customer-{number:08d}@example.org",
        "currency": "EUR",
        "total_cents": 10_000 + number % 10_000,
        "lines": [
            {"sku": f"sku-{number:06d}-{line}", "quantity": 1 + line, "price_cents": 1299} for line in range(LINES)
        ],
        "note": "",
    }
    bare = len(Order.model_validate(fields).model_dump_json())
    fields["note"] = "n" * max(0, size_bytes - bare)
    return fields


def order(number: int, size_bytes: int = ORDER_BYTES) -> Order:
    """Return an order; see `order_fields`."""
    return Order.model_validate(order_fields(number, size_bytes))


def orders() -> list[Order]:
    """Return the orders that a program sends in turn."""
    return [order(number) for number in range(MADE_BEFOREHAND)]
