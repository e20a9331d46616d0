"""`messaging health`: one question with an exit code, for container probes and monitoring."""

import asyncio
import http.client
import json
from typing import Annotated, Any, Final

import typer

from messaging.cli.exits import Exit
from messaging.cli.greeting import greeting_of
from messaging.cli.health_server import READY_PATH
from messaging.cli.link import connected
from messaging.cli.operators import operator_settings
from messaging.cli.render import line, print_json, problem
from messaging.settings import Settings
from messaging.transports.amqp.errors import Node

__all__ = ["health"]

_ANSWER_MAX_BYTES: Final = 1024 * 1024


def health(
    *,
    port: Annotated[
        int | None,
        typer.Option(
            help="Health port of a running service (run --health-port).", min=1, max=65_535, show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where the service runs.")] = "127.0.0.1",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1)] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a running service whether it is ready; without --port, ask the broker whether it takes us.

    Exit codes: 0 yes, 1 no, 2 the broker refuses user or virtual host, 3 no broker.

    Example: [bold]messaging health --port 8081[/bold]
    """
    if port is None:
        _show(asyncio.run(_ask_broker(operator_settings())), as_json=as_json)
        return
    state = _ask_service(host, port, timeout)
    _show(state, as_json=as_json)
    if not state["ready"]:
        raise typer.Exit(Exit.FAILURE)


def _ask_service(host: str, port: int, timeout_s: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", READY_PATH)
        answer = json.loads(connection.getresponse().read(_ANSWER_MAX_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _unready(f"no health at {host}:{port} ({error}): is the service running with --health-port {port}")
    finally:
        connection.close()
    is_state = isinstance(answer, dict) and isinstance(answer.get("ready"), bool)
    return answer if is_state else _unready(f"what answers at {host}:{port} is no service of ours")


async def _ask_broker(settings: Settings) -> dict[str, Any]:
    async with connected(settings, name="health"):
        greeting = await greeting_of(settings.broker_urls[0], timeout_s=settings.connect_timeout_s)
    return {
        "ready": True,
        "problems": [],
        "details": {
            "broker": Node.parse(settings.broker_urls[0]).address,
            "product": greeting.product,
            "version": greeting.version,
        },
    }


def _unready(why: str) -> dict[str, Any]:
    return {"ready": False, "problems": [why], "details": {}}


def _show(state: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    details = state.get("details") or {}
    line("ready" if state["ready"] else "not ready", *(f"  {key}={value}" for key, value in details.items()))
    for words in state.get("problems") or ():
        problem(words)
