"""What a private broker has to know about this machine: which ports are free, who answers, which process is whose."""

import secrets
import shutil
import socket
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Final

from messaging.errors import ConfigurationError

__all__ = ["LOOPBACK", "accepts", "free_port", "is_process", "read_pid", "require_free", "speaks_amqp"]

LOOPBACK: Final = "127.0.0.1"
# The protocol header of AMQP 0-9-1; a broker that is ready answers with a method frame, whose first byte is 1.
_AMQP_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME: Final = b"\x01"
# Linux shows each process here; elsewhere `ps` tells.
_PROCESSES: Final = Path("/proc")
# Below those that kernels give to outgoing connections, from 32768 by default on Linux and from 49152 elsewhere. One of
# theirs may be taken between the question and the listening, and whoever calls a broker that is down again and again
# on such a port in the end gets it as its own and is connected with itself: then the broker cannot come back.
_PORTS: Final = range(16_384, 32_768)
_TRIES: Final = 64


def free_port(*, besides: Collection[int] = ()) -> int:
    """Return a TCP port of the loopback interface that nobody listens on now, by chance, of those for listeners.

    Args:
        besides: None of these.

    Raises:
        ConfigurationError: many were tried, and somebody listens on each.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_PORTS)
        if port not in besides and _is_free(port):
            return port
    raise ConfigurationError(f"{_TRIES} ports of {LOOPBACK} from {_PORTS[0]} to {_PORTS[-1]} are taken; free some")


def accepts(port: int) -> bool:
    """Return whether somebody listens on this port of the loopback interface."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def speaks_amqp(port: int) -> bool:
    """Return whether an AMQP 0-9-1 broker answers on this port of the loopback interface."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as link:
            link.sendall(_AMQP_HEADER)
            return link.recv(1) == _METHOD_FRAME
    except OSError:
        return False


def require_free(port: int) -> None:
    """Make sure that a broker can listen on this port of the loopback interface.

    Raises:
        ConfigurationError: somebody else does.
    """
    with socket.socket() as probe:
        # As the broker does, so that connections of its last run that linger in the kernel are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as exc:
            raise ConfigurationError(f"port {port} of {LOOPBACK} is taken; choose another with --port") from exc


def read_pid(path: Path) -> int | None:
    """Return the process id in a file, or None when there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def is_process(pid: int, mark: str) -> bool:
    """Return whether this process runs and has `mark` in its command line."""
    # The command line of a process that ended and waits for its parent is empty: that one counts as gone.
    if (_PROCESSES / "self").exists():
        try:
            return mark.encode() in (_PROCESSES / str(pid) / "cmdline").read_bytes()
        except OSError:
            return False
    shown = subprocess.run(
        [shutil.which("ps") or "ps", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return mark in shown.stdout


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
