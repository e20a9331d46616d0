"""Finds a broker for the demo, and leaves none behind that was not there before.

`MESSAGING_BROKER_URL` → RabbitMQ of the Compose file here, where a Docker engine answers → a private node of the
installed `rabbitmq-server`, which root on Debian gets installed → the embedded broker, said plainly.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messaging import ConfigurationError
from messaging.cli.broker_compose import ComposeBroker
from messaging.cli.broker_install import ensure_server
from messaging.cli.broker_node import PrivateNode
from messaging.cli.broker_probe import free_port

__all__ = ["EMBEDDED_URL", "FoundBroker", "find_broker"]

EMBEDDED_URL: Final = "memory://"
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBroker:
    """A broker that runs.

    Attributes:
        url: AMQP address, or `memory://`.
        words: What it is, for the reader.
        is_shared: Whether others may use it too, so that the demo must take its queues away again.
    """

    url: str
    words: str
    is_shared: bool = False

    @property
    def is_embedded(self) -> bool:
        """Whether it lives in this process."""
        return self.url == EMBEDDED_URL


@contextmanager
def find_broker(folder: Path, *, given_url: str | None, embedded: bool, report: Report) -> Iterator[FoundBroker]:
    """Find or start a broker for the time of the block.

    Args:
        folder: Home of a private node.
        given_url: The address that the user named, which wins.
        embedded: Whether the user asked for the embedded broker.
        report: Told in one line what takes long and what did not work.
    """
    if embedded or given_url == EMBEDDED_URL:
        yield FoundBroker(url=EMBEDDED_URL, words="the embedded broker, inside this one process, as asked")
        return
    if given_url is not None:
        yield FoundBroker(url=given_url, words="the RabbitMQ of MESSAGING_BROKER_URL", is_shared=True)
        return
    compose = _compose_broker(report)
    if compose is not None:
        with compose as found:
            yield found
        return
    with _private_node(folder, report) as found:
        yield found


def _compose_broker(report: Report) -> "_Lent | None":
    broker = ComposeBroker.found(Path.cwd())
    if broker is None:
        return None
    try:
        was_running = broker.is_ready
        if not was_running:
            report(f"Starting RabbitMQ of {broker.file.name} with Docker Compose ...")
            broker.start()
    except ConfigurationError as error:
        report(f"Docker Compose could not start RabbitMQ ({_first_line(error)}); looking further.")
        return None
    return _Lent(broker, was_running=was_running)


class _Lent:
    """The broker of the Compose file; stopped at the end if the demo started it."""

    def __init__(self, broker: ComposeBroker, *, was_running: bool) -> None:
        self._broker = broker
        self._was_running = was_running

    def __enter__(self) -> FoundBroker:
        words = f"RabbitMQ of {self._broker.file.name}, in Docker"
        return FoundBroker(url=self._broker.url, words=words, is_shared=True)

    def __exit__(self, *_: object) -> None:
        if not self._was_running:
            self._broker.stop()


@contextmanager
def _private_node(folder: Path, report: Report) -> Iterator[FoundBroker]:
    leftover = PrivateNode.recorded(folder)
    if leftover is not None:
        leftover.kill()
    # A fresh node each time: what an earlier story left in the queues would only confuse this one.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        ensure_server(report)
        node = PrivateNode(folder, port=free_port(), name="demo")
        node.start()
    except ConfigurationError as error:
        report(f"No RabbitMQ here: {_first_line(error)}")
        yield FoundBroker(url=EMBEDDED_URL, words="the embedded broker, inside this one process, for want of RabbitMQ")
        return
    try:
        yield FoundBroker(url=node.url, words=f"a private RabbitMQ on 127.0.0.1:{node.port} (process {node.pid})")
    finally:
        # Nothing of it is kept, so an orderly stop would only take time.
        node.kill()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
