"""The example services as processes, over a real RabbitMQ and HTTP, with keys from files."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from messaging import DeadLetter, Selection
from messaging.operators import open_operator
from tests.support.landscape import OPERATOR, Landscape
from tests.support.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

ADA = {"name": "Ada Lovelace", "email": "ada@example.org"}
TEA = {"item": "Darjeeling", "total_cents": 1250}


@pytest.fixture
async def http(landscape: Landscape) -> AsyncIterator[httpx.AsyncClient]:
    async with landscape.client() as client:
        yield client


async def appears(
    http: httpx.AsyncClient, path: str, *, within_s: float = LIMIT_S, **expected: object
) -> dict[str, object]:
    """Wait until a resource is there with these members, and return it."""
    answers: list[httpx.Response] = []

    async def is_there() -> bool:
        answers.append(await http.get(path))
        view = answers[-1].json() if answers[-1].status_code == httpx.codes.OK else {}
        return bool(view) and all(view.get(name) == value for name, value in expected.items())

    await eventually(is_there, within_s, what=lambda: f"{path}: {answers[-1].status_code} {answers[-1].text}")
    found: dict[str, object] = answers[-1].json()
    return found


async def registered(http: httpx.AsyncClient) -> str:
    answer = await http.post("/users", json=ADA)
    assert answer.status_code == 202
    await appears(http, answer.headers["location"])
    return str(answer.json()["id"])


async def test_users_and_orders_over_http(landscape: Landscape, http: httpx.AsyncClient) -> None:
    await landscape.start("users", "orders", "gateway")

    user_id = await registered(http)
    placed = await http.post(f"/users/{user_id}/orders", json=TEA)
    order = await appears(http, placed.headers["location"])
    user = await appears(http, f"/users/{user_id}", orders_placed=1)
    listed = await http.get(f"/users/{user_id}/orders")

    assert placed.status_code == 202
    assert (order["status"], order["item"], order["total_cents"]) == ("placed", "Darjeeling", 1250)
    assert (user["name"], user["email"]) == ("Ada Lovelace", "ada@example.org")
    assert listed.json() == [order]
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).json() == {"status": "ready", "problems": []}


async def test_typed_failures_cross_the_wire(landscape: Landscape, http: httpx.AsyncClient) -> None:
    await landscape.start("users", "orders", "gateway")
    unknown = str(uuid4())

    user, order = await http.get(f"/users/{unknown}"), await http.get(f"/orders/{unknown}")

    assert (user.status_code, user.json()["error"], user.json()["user_id"]) == (404, "users.user_not_found", unknown)
    assert (order.status_code, order.json()["error"], order.json()["order_id"]) == (
        404,
        "orders.order_not_found",
        unknown,
    )


async def test_an_order_of_an_unknown_user_is_rejected_and_may_be_placed_later(
    landscape: Landscape, http: httpx.AsyncClient
) -> None:
    await landscape.start("users", "orders", "gateway")
    user_id, order_key = str(uuid4()), {"Idempotency-Key": str(uuid4())}

    sent = await http.post(f"/users/{user_id}/orders", json=TEA, headers=order_key)
    rejected = await appears(http, sent.headers["location"], status="rejected")
    await http.post("/users", json=ADA, headers={"Idempotency-Key": user_id})
    await appears(http, f"/users/{user_id}")
    again = await http.post(f"/users/{user_id}/orders", json=TEA, headers=order_key)
    placed = await appears(http, sent.headers["location"], status="placed")
    user = await appears(http, f"/users/{user_id}", orders_placed=1)

    assert rejected["reason"] == "unknown_user"
    assert again.headers["location"] == sent.headers["location"]
    assert placed["reason"] is None
    assert user["orders_placed"] == 1


async def test_another_order_under_a_known_id_is_a_dead_letter_that_an_operator_reads(
    landscape: Landscape, http: httpx.AsyncClient
) -> None:
    # One run: no answer of the users service is given up too early.
    await landscape.start("users", "orders", "gateway", ORDERS_USERS_TIMEOUT_S="30")
    user_id, order_key = await registered(http), {"Idempotency-Key": str(uuid4())}
    sent = await http.post(f"/users/{user_id}/orders", json=TEA, headers=order_key)
    await appears(http, sent.headers["location"], status="placed")

    await http.post(f"/users/{user_id}/orders", json={**TEA, "total_cents": 1}, headers=order_key)
    async with open_operator(landscape.settings, OPERATOR) as operator:
        letters: list[DeadLetter] = []

        async def is_dead() -> bool:
            letters.extend(await operator.dead_letters.list("orders"))
            return bool(letters)

        await eventually(is_dead, what="the dead letter was there")
        letter = letters[0]
        report = await operator.dead_letters.discard("orders", Selection(), reason="not the same order")
        left = await operator.dead_letters.list("orders")

    order_id = sent.json()["id"]
    assert letter.is_verified
    assert letter.fault.reason == f"order {order_id} exists with other content"
    assert letter.fault.attempts == 1
    assert letter.payload == {"order_id": order_id, "user_id": user_id, **TEA, "total_cents": 1}
    assert report.discarded == 1
    assert left == []


async def test_repeating_a_call_under_its_key_is_harmless(landscape: Landscape, http: httpx.AsyncClient) -> None:
    await landscape.start("users", "orders", "gateway")
    user_id = await registered(http)
    key = {"Idempotency-Key": f'"{uuid4()}"'}

    answers = [await http.post(f"/users/{user_id}/orders", json=TEA, headers=key) for _ in range(3)]

    assert len({answer.headers["location"] for answer in answers}) == 1
    await appears(http, answers[0].headers["location"])
    async with open_operator(landscape.settings, OPERATOR) as operator:
        queue = operator.names.queue("orders", "commands")

        async def is_empty() -> bool:
            depth = await operator.transport.depth(queue)
            return depth is not None and depth.messages == 0

        await eventually(is_empty, what="the repetitions were handled")
        assert await operator.dead_letters.list("orders") == []
    assert len((await http.get(f"/users/{user_id}/orders")).json()) == 1
    await appears(http, f"/users/{user_id}", orders_placed=1)


async def test_a_service_that_never_ran_is_unavailable_at_once(landscape: Landscape, http: httpx.AsyncClient) -> None:
    await landscape.start("gateway")

    answer = await http.post("/users", json=ADA)

    assert (answer.status_code, answer.json()["routing_key"]) == (503, "users.register_user.v1")
    assert "retry-after" in answer.headers


async def test_a_stopped_service_times_out_and_its_orders_wait_for_it(
    landscape: Landscape, http: httpx.AsyncClient
) -> None:
    users, _, _ = await landscape.start(
        "users", "orders", "gateway", GATEWAY_REQUEST_TIMEOUT_S="2", ORDERS_USERS_TIMEOUT_S="2"
    )
    user_id = await registered(http)
    users.stop()

    question = await http.get(f"/users/{user_id}")
    sent = await http.post(f"/users/{user_id}/orders", json=TEA)
    users.start()
    await users.ready()

    assert (question.status_code, question.json()["type"]) == (504, "urn:messaging:problem:no-answer")
    assert sent.status_code == 202
    # The fifth run comes some 40 s after the first, should all before it have met a users service that still starts.
    await appears(http, sent.headers["location"], within_s=120.0, status="placed")
