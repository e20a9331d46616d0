"""A real RabbitMQ that speaks TLS, with certificates of its own: a node that demands client certificates and takes them
for a login, and a CA that issues what a test needs.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from messaging.cli.broker_node import PrivateNode, free_port
from messaging.transports.amqp.tls import Tls
from scripts.dev_certs import Authority, Issued
from tests.support.broker import CTL_TIMEOUT_S, START_TIMEOUT_S

__all__ = ["TlsNode", "a_tls_node", "expired", "tls_of_client"]

CONFIGURATION: Final = Path(__file__).resolve().parents[2] / "deploy" / "rabbitmq" / "tls.conf"
# The node's certificate is for this name alone: its address is a name that does not fit.
HOST: Final = "localhost"
ADDRESS: Final = "127.0.0.1"


class TlsNode(PrivateNode):
    """A private node with a TLS listener; guest may log in by password, others by certificate too."""

    def __init__(self, folder: Path, *, port: int, tls_port: int, name: str) -> None:
        super().__init__(folder / "node", port=port, name=name)
        self.tls_port = tls_port
        self.authority = Authority(folder / "certs")
        self.stranger = Authority(folder / "strange")
        self.certificate = self.authority.issue_broker("broker", [HOST])

    @property
    def tls_url(self) -> str:
        """Its address without a user, so that a client's certificate is the login."""
        return f"amqps://{HOST}:{self.tls_port}/"

    @property
    def guest_url(self) -> str:
        """Its address with a user and password."""
        return f"amqps://guest:guest@{HOST}:{self.tls_port}/"

    def present(self, issued: Issued) -> None:
        """Show another certificate from the next connection on, as a renewal in place would."""
        if issued != self.certificate:
            for fresh, place in zip(issued, self.certificate, strict=True):
                place.write_bytes(fresh.read_bytes())
        self.ctl("eval", "ssl:clear_pem_cache().")

    def add_user(self, name: str, *, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Make a user who can log in by certificate alone."""
        rights = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
        # In one go: each `rabbitmqctl` is an Erlang of its own.
        self.ctl(
            "eval",
            f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"not used">>, <<"test">>), '
            f'rabbit_auth_backend_internal:clear_password(<<"{name}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"/">>, {rights}, <<"test">>).',
        )

    def ctl(self, *args: str, timeout_s: float = CTL_TIMEOUT_S) -> str:
        """Run `rabbitmqctl`, with the patience that a busy machine needs."""
        return super().ctl(*args, timeout_s=timeout_s)

    def _write_files(self) -> None:
        super()._write_files()
        # All that the deployed configuration says of TLS and logins, over the certificates of this folder.
        deployed = CONFIGURATION.read_text().replace("/etc/rabbitmq/tls", str(self.authority.folder))
        lines = [line for line in deployed.splitlines() if line.startswith(("ssl_", "auth_mechanisms"))]
        with (self.folder / "rabbitmq.conf").open("a") as file:
            file.write("\n".join([f"listeners.ssl.1 = {ADDRESS}:{self.tls_port}", *lines, ""]))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")


@contextmanager
def a_tls_node(name: str = "tls") -> Iterator[TlsNode]:
    """Run a TLS node in a folder of its own; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="messaging-tls-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        node = TlsNode(Path(folder), port=port, tls_port=free_port(besides={port}), name=f"{name}-{os.getpid()}")
        try:
            node.start(START_TIMEOUT_S)
            yield node
        finally:
            node.kill()


def expired() -> dict[str, datetime]:
    """Return the times of a certificate that ended an hour ago."""
    now = datetime.now(tz=UTC)
    return {"not_before": now - timedelta(days=2), "not_after": now - timedelta(hours=1)}


def tls_of_client(node: TlsNode, issued: Issued | None, *, server_name: str | None = None) -> Tls:
    """Return what a client of the node brings: its CA, and a certificate unless it has none."""
    return Tls(
        ca_file=node.authority.certificate_file,
        cert_file=None if issued is None else issued.certificate,
        key_file=None if issued is None else issued.key,
        server_name=server_name,
    )
