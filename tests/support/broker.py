"""A real RabbitMQ for tests: the one that `MESSAGING_TEST_BROKER` names, else a private node of the installed server.

There is no third way: without a broker the tests fail with what to do, they are never skipped.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messaging.cli.broker_node import PrivateNode, free_port
from messaging.errors import ConfigurationError

__all__ = ["CTL_TIMEOUT_S", "START_TIMEOUT_S", "Broker", "a_broker", "a_node", "start_node"]

VARIABLE: Final = "MESSAGING_TEST_BROKER"
# RabbitMQ's own cap is 128 MiB before 4.0 and 16 MiB since; a test must be able to afford a body above it.
NODE_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
NAMED_MAX_BODY_BYTES: Final = 128 * 1024 * 1024
# `rabbitmqctl` is an Erlang of its own, which a very busy machine takes minutes to start.
CTL_TIMEOUT_S: Final = 180.0
START_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker.

    Attributes:
        url: Its address, with user and password.
        max_body_bytes: The largest body that it accepts.
    """

    url: str
    max_body_bytes: int


@contextmanager
def a_broker() -> Iterator[Broker]:
    """Lend the broker that the environment names, else a private node."""
    named = os.environ.get(VARIABLE)
    if named:
        yield Broker(url=named, max_body_bytes=NAMED_MAX_BODY_BYTES)
        return
    with a_node("tests") as node:
        yield Broker(url=node.url, max_body_bytes=NODE_MAX_BODY_BYTES)


@contextmanager
def a_node(name: str) -> Iterator[PrivateNode]:
    """Run a private node in a folder of its own: it may be killed and started again; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="messaging-node-", ignore_cleanup_errors=True) as folder:
        node = PrivateNode(Path(folder), port=free_port(), name=name)
        try:
            start_node(node)
        except ConfigurationError as error:
            raise AssertionError(
                f"these tests need a real RabbitMQ: install rabbitmq-server, or set {VARIABLE} to the amqp:// address "
                f"of one that may be filled with test queues. A private node did not start: {error}"
            ) from error
        try:
            yield node
        finally:
            node.kill()


def start_node(node: PrivateNode) -> None:
    """Start the node, and again the size cap of the tests, which a restart forgets."""
    node.start(START_TIMEOUT_S)
    node.ctl("eval", f"application:set_env(rabbit, max_message_size, {NODE_MAX_BODY_BYTES}).", timeout_s=CTL_TIMEOUT_S)
