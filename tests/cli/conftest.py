"""Installations for the command line, with and without a running service."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiormq
import pytest
import structlog

from messaging.cli.broker_probe import free_port
from messaging.errors import ConfigurationError
from tests.support.broker import Broker
from tests.support.ceremony import Ceremony
from tests.support.installation import Installation, ask, until
from tests.support.managed import ManagedNode, a_managed_node
from tests.support.waiting import LIMIT_S


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program configures logs and finds the user's modules: both belong to one test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    root.handlers[:], root.level = handlers, level
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for name in set(sys.modules) - modules:
        if "." not in name and (Path(str(getattr(sys.modules[name], "__file__", ""))).parent / "keys").exists():
            del sys.modules[name]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An installation whose broker does not exist."""
    monkeypatch.chdir(tmp_path)
    return Installation.make(tmp_path, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker) -> Installation:
    """An installation on a real broker; its service does not run."""
    monkeypatch.chdir(tmp_path)
    return Installation.make(tmp_path, broker_url=broker.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An installation, and where its service tells how it is."""

    installation: Installation
    port: int

    def rested(self) -> None:
        """Wait until the service has handled what it was sent."""
        # More than once: what has just left the queue is not at work yet.
        for _ in range(3):
            until(self._is_idle, what="the shop has done its work")

    def _is_idle(self) -> bool:
        if asyncio.run(self._waiting()):
            return False
        details = ask(self.port).get("details")
        return details is not None and details["running"] == 0

    async def _waiting(self) -> int:
        connection = await aiormq.connect(self.installation.broker_url)
        try:
            channel = await connection.channel()
            found = await channel.queue_declare(f"{self.installation.namespace}.shop.commands", passive=True)
            return found.message_count or 0
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Running]:
    made = Installation.make(tmp_path_factory.mktemp("shop"), broker_url=broker.url)
    port = free_port()
    with (made.folder / "log").open("w") as log:
        service = made.spawn("run", "shop:shop", "--health-port", str(port), stdout=subprocess.DEVNULL, stderr=log)
    try:
        until(
            lambda: service.poll() is not None or ask(port).get("ready"),
            what=f"ready: {(made.folder / 'log').read_text()}",
        )
        assert service.poll() is None, (made.folder / "log").read_text()
        yield Running(installation=made, port=port)
    finally:
        service.terminate()
        assert service.wait(timeout=LIMIT_S) == 0


@pytest.fixture
def running(_running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation whose service runs as a program of its own; a `mended` file of a test goes with it."""
    made = _running.installation
    monkeypatch.chdir(made.folder)
    yield made
    mended = made.folder / "mended"
    if mended.exists():
        # What was replayed and has not run yet would fail again without it, in the middle of the next test.
        _running.rested()
        mended.unlink()


@pytest.fixture(scope="session")
def kept_ceremonies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for what takes its time and may be copied."""
    return tmp_path_factory.mktemp("ceremonies")


@pytest.fixture
def ceremony(offline: Installation, kept_ceremonies: Path) -> Ceremony:
    """A realm with real keys; one root key of two signs."""
    return Ceremony(offline, kept_ceremonies)


@pytest.fixture(scope="session")
def _managed_node() -> Iterator[ManagedNode]:
    with a_managed_node() as node:
        yield node


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _managed_node: ManagedNode) -> Iterator[Installation]:
    """An installation on a private broker with the management API; policies of a test go with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESSAGING_MANAGEMENT_URL", _managed_node.management_url)
    yield Installation.make(tmp_path, broker_url=_managed_node.url)
    with contextlib.suppress(subprocess.CalledProcessError, ConfigurationError):
        _managed_node.ctl("clear_policy", "test")


@pytest.fixture
def managed_node(_managed_node: ManagedNode) -> ManagedNode:
    """The broker of `managed`."""
    return _managed_node
