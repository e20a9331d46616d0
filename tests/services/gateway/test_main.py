"""`python -m services.gateway` as a process: what its user sees when broker, keys or port are missing."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from messaging.ambient import real_ambient
from messaging.cli.broker_probe import free_port
from messaging.security.development_files import Contract, init_development
from services.demo.settings import environment_with
from services.gateway import gateway
from tests.support.guarded import guarded
from tests.support.waiting import LIMIT_S, eventually

COMMAND = [sys.executable, "-m", "services.gateway"]


def run(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, env=environment_with(variables), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def keys_in(folder: Path) -> str:
    contracts = {"gateway": Contract(handles=gateway.subscriptions)}
    init_development(folder / "keys", contracts, ambient=real_ambient())
    return str(folder / "keys")


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_missing_keys_are_one_line_with_the_remedy() -> None:
    done = run({"GATEWAY_PORT": "0"})

    (line,) = errors_of(done)
    assert done.returncode == 2
    assert "MESSAGING_KEYS" in line


def test_a_folder_without_keys_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    done = run({"GATEWAY_PORT": "0", "MESSAGING_KEYS": str(tmp_path)})

    (line,) = errors_of(done)
    assert done.returncode == 2
    assert "gateway.key" in line


def test_a_setting_that_does_not_fit_is_one_line() -> None:
    done = run({"GATEWAY_PORT": "high"})

    (line,) = errors_of(done)
    assert done.returncode == 2
    assert line.startswith("error: GATEWAY_PORT: ")


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            {"GATEWAY_PORT": str(port), "MESSAGING_KEYS": keys_in(tmp_path), "MESSAGING_BROKER_URL": "memory://"}
        )

    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_a_broker_it_serves_and_says_so(tmp_path: Path) -> None:
    port, nobody = free_port(), free_port()
    environment = environment_with(
        {
            "GATEWAY_PORT": str(port),
            "MESSAGING_KEYS": keys_in(tmp_path),
            "MESSAGING_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{nobody}/",
        }
    )
    process = await asyncio.create_subprocess_exec(
        *guarded(*COMMAND), env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base_url, timeout=LIMIT_S, trust_env=False) as client:

            async def is_up() -> bool:
                try:
                    return (await client.get("/healthz")).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            await eventually(is_up, what="the gateway answers")
            ready = await client.get("/readyz")
            answer = await client.post("/users", json={"name": "Ada", "email": "ada@example.org"})
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            await process.wait()

    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:messaging:problem:broker-unavailable")
    assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("option", ["services.users", "services.orders"])
def test_the_others_are_run_by_the_command_line(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", option, "--help"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )

    assert done.returncode == 0
    assert "--health-port" in done.stdout
