"""The orders service's own table. Every write is idempotent by primary key: a repetition changes nothing.

It writes in the transaction of the handler, which the inbox and the outbox are in too.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, MetaData, Row, Table, Text, Uuid, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.database import insert_new
from services.orders.contract import OrderNotFound, OrderStatus, OrderView, PlaceOrder, RejectReason

__all__ = ["OrderConflictError", "OrderStore", "metadata"]

metadata = MetaData()
_orders = Table(
    "orders",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("item", Text, nullable=False),
    Column("total_cents", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=True),
    Column("changed_at_ms", BigInteger, nullable=False),
    Index("orders_by_user", "user_id", "changed_at_ms"),
)


class OrderConflictError(Exception):
    """Another order is known under the same id."""


class OrderStore:
    """Orders and what became of them.

    Args:
        session: An open transaction; whoever opened it commits.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def is_placed(self, order: PlaceOrder) -> bool:
        """Tell whether this very order is placed already.

        Raises:
            OrderConflictError: the id is taken by an order with other content.
        """
        known = await self._find(order.order_id)
        if known is None:
            return False
        _require_same(known, order)
        return bool(known.status == OrderStatus.PLACED)

    async def place(self, order: PlaceOrder, *, at: datetime) -> None:
        """Record an order as placed, be it new, rejected before, or placed already.

        Raises:
            OrderConflictError: the id is taken by an order with other content.
        """
        await self._record(order, OrderStatus.PLACED, reason=None, at=at)

    async def reject(self, order: PlaceOrder, reason: RejectReason, *, at: datetime) -> None:
        """Record why an order is rejected; an order that is placed already stays placed.

        Raises:
            OrderConflictError: the id is taken by an order with other content.
        """
        await self._record(order, OrderStatus.REJECTED, reason=reason, at=at)

    async def get(self, order_id: UUID) -> OrderView:
        """Return an order.

        Raises:
            OrderNotFound: none is known under this id.
        """
        row = await self._find(order_id)
        if row is None:
            raise OrderNotFound(order_id=order_id)
        return _view(row)

    async def of_user(self, user_id: UUID, *, limit: int) -> list[OrderView]:
        """Return at most `limit` orders of a user, latest first."""
        latest_first = (_orders.c.changed_at_ms.desc(), _orders.c.order_id.desc())
        query = select(_orders).where(_orders.c.user_id == user_id).order_by(*latest_first).limit(limit)
        return [_view(row) for row in await self._session.execute(query)]

    async def _record(
        self, order: PlaceOrder, status: OrderStatus, *, reason: RejectReason | None, at: datetime
    ) -> None:
        outcome = {"status": status, "reason": reason, "changed_at_ms": round(at.timestamp() * 1000)}
        if await insert_new(self._session, _orders, {**order.model_dump(), **outcome}):
            return
        same_order = _orders.c.order_id == order.order_id
        _require_same((await self._session.execute(select(_orders).where(same_order))).one(), order)
        # One statement, so that a concurrent duplicate cannot turn a placed order into a rejected one.
        not_placed = _orders.c.status != OrderStatus.PLACED
        await self._session.execute(update(_orders).where(same_order, not_placed).values(outcome))

    async def _find(self, order_id: UUID) -> Row[Any] | None:
        return (await self._session.execute(select(_orders).where(_orders.c.order_id == order_id))).one_or_none()


def _require_same(known: Row[Any], order: PlaceOrder) -> None:
    if (known.user_id, known.item, known.total_cents) != (order.user_id, order.item, order.total_cents):
        raise OrderConflictError(f"order {order.order_id} exists with other content")


def _view(row: Row[Any]) -> OrderView:
    return OrderView(
        order_id=row.order_id,
        user_id=row.user_id,
        item=row.item,
        total_cents=row.total_cents,
        status=OrderStatus(row.status),
        reason=None if row.reason is None else RejectReason(row.reason),
        changed_at=datetime.fromtimestamp(row.changed_at_ms / 1000, tz=UTC),
    )
