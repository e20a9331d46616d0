"""Three private nodes that are one cluster: a port mapper and a cookie in common; each is killed and started alone."""

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from messaging.cli.broker_node import PrivateNode
from messaging.cli.broker_probe import LOOPBACK, accepts, free_port

__all__ = ["ClusterNode", "run_cluster"]

SIZE: Final = 3
_START_TIMEOUT_S: Final = 180.0
_CTL_TIMEOUT_S: Final = 120.0
_EPMD_TIMEOUT_S: Final = 20.0


class ClusterNode(PrivateNode):
    """A private node that shares its port mapper and its cookie with others.

    Args:
        folder: Home of everything it writes.
        name: First part of its name.
        epmd_port: Of the port mapper, which somebody else runs.
        cookie: Of the cluster.
    """

    def __init__(self, folder: Path, *, name: str, epmd_port: int, cookie: str) -> None:
        super().__init__(folder, port=free_port(), name=name)
        self._epmd_port = epmd_port
        self._cookie = cookie

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".erlang.cookie"
        if not path.exists():
            path.write_text(self._cookie)
            path.chmod(0o400)
        super()._write_files()
        with (self.folder / "rabbitmq.conf").open("a") as settings:
            # A node that cannot see most of the others stops, and starts again when it can.
            settings.write("cluster_partition_handling = pause_minority\n")
        record = self.folder / "node.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "epmd_port": self._epmd_port}))

    def separate(self, other: "ClusterNode") -> None:
        """Let the two nodes not see each other until `rejoin`: neither accepts the other's cookie."""
        for here, there in ((self, other), (other, self)):
            here.ctl("eval", f"erlang:set_cookie('{there.node_name}', another).", timeout_s=_CTL_TIMEOUT_S)
        self.ctl("eval", f"erlang:disconnect_node('{other.node_name}').", timeout_s=_CTL_TIMEOUT_S)

    def rejoin(self, other: "ClusterNode") -> None:
        """End `separate`."""
        for here, there in ((self, other), (other, self)):
            here.ctl("eval", f"erlang:set_cookie('{there.node_name}', '{self._cookie}').", timeout_s=_CTL_TIMEOUT_S)

    def _start_epmd(self) -> None:
        """It runs already."""


@contextmanager
def run_cluster() -> Iterator[list[ClusterNode]]:
    """Run three joined nodes for the time of the block."""
    folder = Path(tempfile.mkdtemp(prefix="messaging-cluster-"))
    epmd_port, cookie = free_port(), secrets.token_hex(16)
    epmd = _start_epmd(epmd_port)
    nodes = [
        ClusterNode(folder / name, name=name, epmd_port=epmd_port, cookie=cookie)
        for name in (f"chaos-{letter}" for letter in "abc"[:SIZE])
    ]
    try:
        for node in nodes:
            node.start(_START_TIMEOUT_S)
        for node in nodes[1:]:
            for words in (["stop_app"], ["reset"], ["join_cluster", nodes[0].node_name], ["start_app"]):
                node.ctl(*words, timeout_s=_CTL_TIMEOUT_S)
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        # Closes the pipe.
        epmd.communicate(timeout=_EPMD_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def _start_epmd(port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("epmd")
    assert program is not None, "Erlang is not installed"
    # The shell reads a pipe that closes however this process ends, and takes the port mapper with it.
    script = '"$1" -address "$2" -port "$3" & read -r _; kill -TERM $!; wait'
    epmd = subprocess.Popen(
        ["/bin/sh", "-c", script, "epmd", program, LOOPBACK, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline_s = time.monotonic() + _EPMD_TIMEOUT_S
    while not accepts(port):
        assert time.monotonic() < deadline_s, "the port mapper did not start"
        time.sleep(0.05)
    return epmd
