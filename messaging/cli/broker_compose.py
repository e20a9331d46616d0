"""`ComposeBroker`: the RabbitMQ service of a Compose file, where a Docker engine answers."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from messaging.cli.broker_probe import speaks_amqp
from messaging.errors import ConfigurationError

__all__ = ["ComposeBroker"]

_FILES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_SERVICE: Final = "rabbitmq"
_PORT: Final = 5672
_PROBE_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.2


class ComposeBroker:
    """The service `rabbitmq` of a Compose file.

    Args:
        file: The Compose file.
        command: The program with its first arguments: `docker compose` or `docker-compose`.
    """

    def __init__(self, file: Path, *, command: tuple[str, ...]) -> None:
        self.file = file
        self._command = command

    @classmethod
    def found(cls, folder: Path) -> "ComposeBroker | None":
        """Return the broker of the Compose file in this folder, or None without a file, Compose or a running engine."""
        file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        docker = shutil.which("docker")
        if file is None or docker is None or not _succeeds(docker, "info"):
            return None
        if _succeeds(docker, "compose", "version"):
            return cls(file, command=(docker, "compose"))
        standalone = shutil.which("docker-compose")
        return None if standalone is None else cls(file, command=(standalone,))

    @property
    def url(self) -> str:
        """AMQP address with the user that the Compose file makes for development."""
        return f"amqp://messaging:messaging@127.0.0.1:{_PORT}/"

    @property
    def is_ready(self) -> bool:
        """Whether the service runs and answers AMQP."""
        return bool(self._run("ps", "-q", _SERVICE).strip()) and speaks_amqp(_PORT)

    def start(self, timeout_s: float = 120.0) -> None:
        """Start the service and return once it answers AMQP.

        Raises:
            ConfigurationError: Compose failed, or the broker does not answer in time.
        """
        self._run("up", "-d", _SERVICE)
        deadline = time.monotonic() + timeout_s
        while not self.is_ready:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"RabbitMQ of {self.file} does not answer on port {_PORT}; see `docker compose logs {_SERVICE}`"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop the service; its volume stays.

        Raises:
            ConfigurationError: Compose failed.
        """
        self._run("stop", _SERVICE)

    def _run(self, *args: str) -> str:
        command = [*self._command, "-f", str(self.file), *args]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise ConfigurationError(f"`{' '.join(command)}` took longer than {_COMMAND_TIMEOUT_S:.0f} s") from exc
        if done.returncode != 0:
            raise ConfigurationError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
