"""What probes get, also those that speak badly."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from messaging.cli.health_server import serving_health
from messaging.errors import ConfigurationError
from messaging.runtime.health import Health

READY = Health(is_live=True, is_ready=True, details={"service": "shop", "running": 2})
HELD = Health(is_live=True, is_ready=False, problems=("the link is down; see `messaging doctor`",))


class Clinic:
    """A server whose patient can be changed."""

    def __init__(self) -> None:
        self.health = READY
        self.port = 0

    async def say(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def get(self, path: str, *, method: str = "GET") -> tuple[int, bytes]:
        answer = await self.say(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@pytest.fixture
async def clinic() -> AsyncIterator[Clinic]:
    made = Clinic()
    async with serving_health(lambda: made.health, 0, host="127.0.0.1") as (_, made.port):
        yield made
        # Lets the server see the last client go.
        await asyncio.sleep(0)


async def test_a_ready_service(clinic: Clinic) -> None:
    status, body = await clinic.get("/readyz")

    assert status == 200
    assert json.loads(body) == {
        "live": True,
        "ready": True,
        "problems": [],
        "details": {"service": "shop", "running": 2},
    }


async def test_one_that_lives_and_may_not_be_given_work(clinic: Clinic) -> None:
    clinic.health = HELD

    assert (await clinic.get("/healthz"))[0] == 200
    status, body = await clinic.get("/readyz?verbose")
    assert status == 503
    assert json.loads(body)["problems"] == list(HELD.problems)


async def test_a_head_has_no_body(clinic: Clinic) -> None:
    assert await clinic.get("/healthz", method="HEAD") == (200, b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"\x00\xff\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"404"),
    ],
)
async def test_everything_else_is_refused_in_order(clinic: Clinic, request_: bytes, status: bytes) -> None:
    assert (await clinic.say(request_)).split()[1] == status


async def test_a_request_beyond_the_cap_is_dropped_and_the_next_one_served(clinic: Clinic) -> None:
    assert await clinic.say(b"GET /" + b"x" * 60_000 + b" HTTP/1.1\r\n\r\n") == b""

    assert (await clinic.get("/readyz"))[0] == 200


async def test_a_taken_port_is_a_configuration_error(clinic: Clinic) -> None:
    with pytest.raises(ConfigurationError, match=f"health port {clinic.port} cannot be had"):
        async with serving_health(lambda: READY, clinic.port, host="127.0.0.1"):
            pass
