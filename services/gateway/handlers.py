"""The gateway's HTTP endpoints: each turns one call into one message and its outcome into an answer.

A `POST` answers 202 once the broker has the command; the resource appears under `Location` when it is handled. The
`Idempotency-Key` header, a UUID, becomes the resource's id: repeating a call with the same key is harmless.
"""

from dataclasses import dataclass
from typing import Annotated, TypeVar
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Header, Query, Response, status
from starlette.requests import Request as HttpRequest

from messaging import Command, ConnectionLostError, Request, Service
from services.gateway.contract import Accepted, IdempotencyKey, NewOrder, NewUser, Readiness
from services.gateway.settings import GatewaySettings
from services.orders.contract import GetOrder, ListOrders, OrderView, PlaceOrder
from services.users.contract import GetUser, RegisterUser, UserView

__all__ = ["Door", "router"]

R = TypeVar("R")

router = APIRouter()


@dataclass(slots=True, kw_only=True)
class Door:
    """What the endpoints share.

    Attributes:
        service: The way to the services.
        settings: The gateway's own.
        problem: Why the service is not open; None once it is.
    """

    service: Service
    settings: GatewaySettings
    problem: str | None = "the gateway is still connecting to the broker; see /readyz"

    async def send(self, command: Command) -> UUID:
        """Send a command.

        Raises:
            MessagingError: as `Service.send`; ConnectionLostError before the service is open.
        """
        self._require_open()
        return await self.service.send(command, timeout=self.settings.send_timeout_s)

    async def ask(self, request: Request[R]) -> R:
        """Ask a question.

        Raises:
            MessagingError: as `Service.request`; ConnectionLostError before the service is open.
        """
        self._require_open()
        return await self.service.request(request, timeout=self.settings.request_timeout_s)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why calls cannot be served now."""
        return self.service.health.problems if self.problem is None else (self.problem,)

    def _require_open(self) -> None:
        if self.problem is not None:
            raise ConnectionLostError(self.problem)


def _door(http: HttpRequest) -> Door:
    door: Door = http.app.state.door
    return door


_Door = Annotated[Door, Depends(_door)]
_Key = Annotated[IdempotencyKey | None, Header(alias="Idempotency-Key")]


@router.post("/users", status_code=status.HTTP_202_ACCEPTED)
async def register_user(user: NewUser, response: Response, door: _Door, key: _Key = None) -> Accepted:
    """Register a user."""
    user_id = key or uuid4()
    command = RegisterUser(user_id=user_id, **user.model_dump())
    message_id = await door.send(command)
    response.headers["Location"] = f"/users/{user_id}"
    return Accepted(id=user_id, message_id=message_id)


@router.get("/users/{user_id}")
async def get_user(user_id: UUID, door: _Door) -> UserView:
    """Return a user."""
    return await door.ask(GetUser(user_id=user_id))


@router.post("/users/{user_id}/orders", status_code=status.HTTP_202_ACCEPTED)
async def place_order(user_id: UUID, order: NewOrder, response: Response, door: _Door, key: _Key = None) -> Accepted:
    """Place an order for a user."""
    order_id = key or uuid4()
    command = PlaceOrder(order_id=order_id, user_id=user_id, **order.model_dump())
    message_id = await door.send(command)
    response.headers["Location"] = f"/orders/{order_id}"
    return Accepted(id=order_id, message_id=message_id)


@router.get("/orders/{order_id}")
async def get_order(order_id: UUID, door: _Door) -> OrderView:
    """Return an order."""
    return await door.ask(GetOrder(order_id=order_id))


@router.get("/users/{user_id}/orders")
async def list_orders(user_id: UUID, door: _Door, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[OrderView]:
    """Return a user's orders, latest first."""
    return await door.ask(ListOrders(user_id=user_id, limit=limit))


@router.get("/healthz")
async def healthz(door: _Door, response: Response) -> Readiness:
    """Tell whether the process is worth keeping; before the broker is there it is."""
    if door.problem is not None or door.service.health.is_live:
        return Readiness(status="live")
    response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(status="stuck", problems=door.problems)


@router.get("/readyz")
async def readyz(door: _Door, response: Response) -> Readiness:
    """Tell whether calls can be served now."""
    if door.problem is None and door.service.health.is_ready:
        return Readiness(status="ready")
    response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(status="not ready", problems=door.problems)
