"""Where a benchmark takes place: a private node, one with TLS, three that are one cluster, or a broker that was lent.

The rigs are those of the tests, so that what is measured is what is tested.
"""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.brokers import lent_or_private
from messaging.transports.amqp.tls import Tls
from tests.chaos.cluster import run_cluster
from tests.support.tls import a_tls_node

__all__ = ["KINDS", "Ground", "add_options", "ground"]

NODE: Final = "node"
TLS: Final = "tls"
CLUSTER: Final = "cluster"
KINDS: Final = (NODE, TLS, CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A broker to measure on.

    Attributes:
        url: Its address; of a cluster that of the first node, of which the others hold copies.
        title: In results.
        tls: What a client brings to TLS; None: the address begins with amqp.
    """

    url: str
    title: str
    tls: Tls | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Settings of our services that get there, for a process."""
        tls = self.tls
        if tls is None:
            return {}
        files = {
            "MESSAGING_TLS_CA_FILE": tls.ca_file,
            "MESSAGING_TLS_CERT_FILE": tls.cert_file,
            "MESSAGING_TLS_KEY_FILE": tls.key_file,
        }
        return {name: str(path) for name, path in files.items() if path is not None}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the command line say where."""
    parser.add_argument("--on", choices=KINDS, default=NODE, help="a private node, one with TLS, or three as a cluster")
    parser.add_argument("--url", help="of a RabbitMQ that may be used, instead of --on")


@contextlib.contextmanager
def ground(options: argparse.Namespace) -> Iterator[Ground]:
    """Lend the ground that the command line says, for the time of the block."""
    if options.url is None and options.on == TLS:
        with a_tls_node("benchtls") as node:
            issued = node.authority.issue_client("benchmark", "benchmark")
            tls = Tls(ca_file=node.authority.certificate_file, cert_file=issued.certificate, key_file=issued.key)
            yield Ground(url=node.guest_url, title="a node with TLS and client certificates", tls=tls)
        return
    if options.url is None and options.on == CLUSTER:
        with run_cluster() as nodes:
            yield Ground(url=nodes[0].url, title=f"a cluster of {len(nodes)} nodes on this machine")
        return
    with lent_or_private(options.url) as (url, _):
        yield Ground(url=url, title="a node" if options.url is None else "a broker that was lent")
