"""Serves `/healthz` (is the process alive) and `/readyz` (may it be given work) as JSON, for probes.

HTTP/1.1 of the smallest kind: one request per connection, GET and HEAD, bounded in size and time, so that a broken
client costs nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from messaging.errors import ConfigurationError
from messaging.runtime.health import Health

__all__ = ["LIVE_PATH", "READY_PATH", "serving_health"]

LIVE_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"
# Probes come from outside the container; nothing but the state is told, and nothing can be changed.
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - see above
_REQUEST_MAX_BYTES: Final = 8 * 1024
_TIMEOUT_S: Final = 5.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@asynccontextmanager
async def serving_health(
    health: Callable[[], Health], port: int, *, host: str = _EVERYWHERE
) -> AsyncIterator[tuple[str, int]]:
    """Serve health for the length of the block; yields the address that is listened on.

    Args:
        health: Asked at every request.
        port: TCP port; 0 takes a free one.
        host: Address to listen on.

    Raises:
        ConfigurationError: the port cannot be had.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away or stalls is its own problem.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head.split(b"\r\n", 1)[0], health()))
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    try:
        server = await asyncio.start_server(answer, host, port, limit=_REQUEST_MAX_BYTES)
    except OSError as error:
        raise ConfigurationError(
            f"the health port {port} cannot be had ({error.strerror}): choose another with --health-port"
        ) from error
    async with server:
        address: tuple[str, int] = server.sockets[0].getsockname()[:2]
        yield address


def _response(request_line: bytes, health: Health) -> bytes:
    status, body = _answer(request_line.split(b" "), health)
    content = json.dumps(body, default=str).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    ).encode()
    return head if request_line.startswith(b"HEAD ") else head + content


def _answer(parts: list[bytes], health: Health) -> tuple[int, dict[str, object]]:
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/"):
        return 400, {"problem": "not an HTTP request"}
    if parts[0] not in (b"GET", b"HEAD"):
        return 405, {"problem": "only GET and HEAD"}
    match parts[1].partition(b"?")[0].decode("ascii", "replace"):
        case "/healthz":
            return _state(health.is_live, health)
        case "/readyz":
            return _state(health.is_ready, health)
        case _:
            return 404, {"problem": f"there are {LIVE_PATH} and {READY_PATH}"}


def _state(is_good: bool, health: Health) -> tuple[int, dict[str, object]]:
    return (200 if is_good else 503), {
        "live": health.is_live,
        "ready": health.is_ready,
        "problems": list(health.problems),
        "details": dict(health.details),
    }
