"""The table from errors to HTTP, seen from outside: a web application whose service fails as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest

from messaging import (
    ConfigurationError,
    ConnectionLostError,
    Fault,
    InvalidPayloadError,
    PublishNotConfirmedError,
    RemoteError,
    RequestTimeoutError,
    Service,
    UnroutableError,
)
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.orders.contract import OrderNotFound
from services.users.contract import UserNotFound

ID = UUID("018f0000-0000-7000-8000-000000000001")


class FailingService:
    """Stands where the gateway's service stands and raises what it was told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.health = SimpleNamespace(is_live=True, is_ready=False, problems=("no broker at 127.0.0.1:1",))

    async def start(self, **_: object) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def send(self, *_: object, **__: object) -> UUID:
        raise self.error

    async def request(self, *_: object, **__: object) -> Any:
        raise self.error


@asynccontextmanager
async def client_of(error: Exception) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(cast("Service", FailingService(error)), GatewaySettings())
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://it") as client:
        # One turn of the loop: the service opens beside the application.
        await asyncio.sleep(0)
        yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(AssertionError("must not be asked")) as opened:
        yield opened


def fault() -> Fault:
    return Fault(error="ZeroDivisionError", reason="division by zero", trace="store.py:1 in get")


@pytest.mark.parametrize(
    ("error", "status", "slug", "more"),
    [
        (UserNotFound(user_id=ID), 404, "user-not-found", {"error": "users.user_not_found", "user_id": str(ID)}),
        (OrderNotFound(order_id=ID), 404, "order-not-found", {"error": "orders.order_not_found", "order_id": str(ID)}),
        (RemoteError("it failed", fault=fault()), 502, "remote-error", {"error": "ZeroDivisionError"}),
        (RequestTimeoutError("no answer", message_id=ID), 504, "no-answer", {"message_id": str(ID)}),
        (PublishNotConfirmedError("unknown", message_id=ID), 504, "not-confirmed", {"message_id": str(ID)}),
        (UnroutableError("nobody", routing_key="a.b.v1"), 503, "service-unavailable", {"routing_key": "a.b.v1"}),
        (ConnectionLostError("no broker"), 503, "broker-unavailable", {}),
        (InvalidPayloadError("does not fit"), 422, "invalid", {}),
    ],
)
async def test_every_remote_outcome_has_its_status(
    error: Exception, status: int, slug: str, more: dict[str, str]
) -> None:
    async with client_of(error) as client:
        answer = await client.get(f"/users/{ID}")

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.pop("title")
    expected = {"type": f"urn:messaging:problem:{slug}", "status": status, "detail": str(error), **more}
    assert problem == {**expected, "instance": f"/users/{ID}"}


@pytest.mark.parametrize(
    "error", [RequestTimeoutError("no answer", message_id=ID), UnroutableError("nobody", routing_key="a.b.v1")]
)
async def test_a_passing_problem_says_when_to_come_back(error: Exception) -> None:
    async with client_of(error) as client:
        answer = await client.post("/users", json={"name": "Ada", "email": "ada@example.org"})

    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "error", [ConfigurationError("no key in /secret/folder"), RuntimeError("password hunter2")], ids=["setup", "defect"]
)
async def test_insides_stay_inside(error: Exception) -> None:
    async with client_of(error) as client:
        answer = await client.get(f"/users/{ID}")

    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:messaging:problem:internal"
    assert "secret" not in answer.text
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"email": "ada@example.org"}, "body.name"),
        ({"name": "Ada", "email": "hunter2"}, "body.email"),
        ({"name": "  ", "email": "ada@example.org"}, "body.name"),
        ({"name": "A\u0000da", "email": "ada@example.org"}, "body.name"),
        ({"name": "Ada", "email": "ada@example.org", "admin": True}, "body.admin"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_field_by_field(
    client: httpx.AsyncClient, body: dict[str, object], wrong: str
) -> None:
    answer = await client.post("/users", json=body)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["in"] for error in answer.json()["errors"]] == [wrong]
    assert "hunter2" not in answer.text


async def test_a_bad_idempotency_key_is_told(client: httpx.AsyncClient) -> None:
    body = {"name": "Ada", "email": "ada@example.org"}

    answer = await client.post("/users", json=body, headers={"Idempotency-Key": "again"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["in"] == "header.Idempotency-Key"


async def test_other_http_errors_are_problems_too(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nowhere")
    wrong_method = await client.delete(f"/users/{uuid4()}")

    assert (missing.status_code, missing.json()["type"]) == (404, "urn:messaging:problem:not-found")
    assert (wrong_method.status_code, wrong_method.json()["status"]) == (405, 405)
    assert wrong_method.headers["content-type"] == "application/problem+json"
    assert "GET" in wrong_method.headers["allow"]


async def test_a_gateway_without_broker_is_live_but_not_ready(client: httpx.AsyncClient) -> None:
    live = await client.get("/healthz")
    ready = await client.get("/readyz")

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["problems"] == ["no broker at 127.0.0.1:1"]
