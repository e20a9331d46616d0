"""Put `rabbitmq-server` on this machine where that can be done without asking: as root on Debian and its relatives."""

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

from messaging.cli.broker_node import find_server_folder
from messaging.errors import ConfigurationError

__all__ = ["ensure_server", "is_installed"]

_PACKAGE: Final = "rabbitmq-server"
_APT_TIMEOUT_S: Final = 600.0


def is_installed() -> bool:
    """Return whether the programs of RabbitMQ are on this machine."""
    try:
        find_server_folder()
    except ConfigurationError:
        return False
    return True


def ensure_server(report: Callable[[str], None], *, install: bool = True) -> None:
    """Install `rabbitmq-server` with apt-get when it is missing, this is root, and the machine has apt-get.

    Args:
        report: Told in one line what is about to happen, before it takes a minute.
        install: Whether installing is allowed; when not, a missing server is an error.

    Raises:
        ConfigurationError: RabbitMQ is missing and cannot be installed here; the message says how to get one.
    """
    apt_get = shutil.which("apt-get")
    if not is_installed() and install and apt_get is not None and os.geteuid() == 0:
        report(f"Installing {_PACKAGE} with apt-get (once) ...")
        _run_apt(apt_get, "update", "-qq")
        _run_apt(apt_get, "install", "-y", "-qq", "--no-install-recommends", _PACKAGE)
    find_server_folder()


def _run_apt(apt_get: str, *args: str) -> None:
    # `env` adds one variable and keeps the rest, proxies among them.
    env = shutil.which("env") or "/usr/bin/env"
    command = [env, "DEBIAN_FRONTEND=noninteractive", apt_get, *args]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ConfigurationError(f"`apt-get {' '.join(args)}` took longer than {_APT_TIMEOUT_S:.0f} s") from exc
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip()
        raise ConfigurationError(f"`apt-get {' '.join(args)}` failed; run it by hand to see why: {reason}")
