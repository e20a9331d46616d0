"""The users service's own tables. Every write is idempotent by primary key: a repetition changes nothing.

It writes in the transaction of the handler, which the inbox and the outbox are in too.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, MetaData, Row, Table, Text, Uuid, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.database import insert_new
from services.users.contract import RegisterUser, UserNotFound, UserView

__all__ = ["UserConflictError", "UserStore", "metadata"]

metadata = MetaData()
_users = Table(
    "users",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("registered_at_ms", BigInteger, nullable=False),
)
_placed_orders = Table(
    "users_placed_orders",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False, index=True),
)


class UserConflictError(Exception):
    """Another user is registered under the same id."""


class UserStore:
    """Users and the orders that were heard of.

    Args:
        session: An open transaction; whoever opened it commits.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def register(self, user: RegisterUser, *, at: datetime) -> None:
        """Register a user; the same user again is fine.

        Raises:
            UserConflictError: the id is taken by a user with another name or address.
        """
        row = {**user.model_dump(), "registered_at_ms": round(at.timestamp() * 1000)}
        if await insert_new(self._session, _users, row):
            return
        known = (await self._session.execute(select(_users).where(_users.c.user_id == user.user_id))).one()
        if (known.name, known.email) != (user.name, user.email):
            raise UserConflictError(f"user {user.user_id} is registered with another name or e-mail address")

    async def get(self, user_id: UUID) -> UserView:
        """Return a user.

        Raises:
            UserNotFound: nobody is registered under this id.
        """
        orders = select(func.count()).where(_placed_orders.c.user_id == user_id).scalar_subquery()
        query = select(_users, orders.label("orders_placed")).where(_users.c.user_id == user_id)
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise UserNotFound(user_id=user_id)
        return _view(row)

    async def count_order(self, *, order_id: UUID, user_id: UUID) -> None:
        """Remember that a user placed an order; the same order again is fine."""
        await insert_new(self._session, _placed_orders, {"order_id": order_id, "user_id": user_id})


def _view(row: Row[Any]) -> UserView:
    return UserView(
        user_id=row.user_id,
        name=row.name,
        email=row.email,
        registered_at=datetime.fromtimestamp(row.registered_at_ms / 1000, tz=UTC),
        orders_placed=row.orders_placed,
    )
