"""A private RabbitMQ with its management API, for what AMQP cannot tell."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from messaging.cli.broker_node import PrivateNode
from messaging.cli.broker_probe import free_port

__all__ = ["ManagedNode", "a_managed_node"]

_HOST: Final = "127.0.0.1"


class ManagedNode(PrivateNode):
    """A private node that answers HTTP as well."""

    def __init__(self, folder: Path, *, port: int, name: str) -> None:
        super().__init__(folder, port=port, name=name)
        self.management_port = free_port()

    @property
    def management_url(self) -> str:
        """Address of the API, with user and password."""
        return f"http://guest:guest@{_HOST}:{self.management_port}"

    def _write_files(self) -> None:
        super()._write_files()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        with (self.folder / "rabbitmq.conf").open("a") as file:
            file.write(f"management.tcp.ip = {_HOST}\nmanagement.tcp.port = {self.management_port}\n")
            # Numbers of queues that are at most so old; a test that counts does not want to wait for 5 s.
            file.write("collect_statistics_interval = 1000\n")


@contextmanager
def a_managed_node() -> Iterator[ManagedNode]:
    """Run one in a folder of its own; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="messaging-node-", ignore_cleanup_errors=True) as folder:
        node = ManagedNode(Path(folder), port=free_port(), name="managed")
        node.start()
        try:
            yield node
        finally:
            node.kill()
