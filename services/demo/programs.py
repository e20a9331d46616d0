"""`Program`: a service as a process of its own, with its log in a file, that never outlives the demo."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from services.demo.errors import DemoError

__all__ = ["Program"]

_POLL_S: Final = 0.05
_STOP_TIMEOUT_S: Final = 8.0


class Program:
    """One process.

    Args:
        name: For messages and for the log's file name.
        arguments: What stands behind `python -m`.
        environment: All of its environment.
        health_url: Answers 200 once it is ready.
        log_folder: Where its log goes.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        health_url: str,
        log_folder: Path,
    ) -> None:
        self.name = name
        self.log_file = log_folder / f"{name}.log"
        self._command = [sys.executable, "-m", *arguments]
        self._environment = dict(environment)
        self._health_url = health_url
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; `ready` waits for it."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own programs, arguments as a list, no shell
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Out of reach of the terminal: on Ctrl-C the demo stops its programs in order.
                start_new_session=True,
            )
        self._guard = _start_guard(self._process.pid)

    async def ready(self, timeout_s: float = 90.0) -> None:
        """Wait until it is ready.

        Raises:
            DemoError: it ended, or was not ready in time; the message carries its last words.
        """
        deadline_s = time.monotonic() + timeout_s
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            while not await _answers(client, self._health_url):
                if self._process is None or self._process.poll() is not None:
                    raise DemoError(f"{self.name} ended while starting: {self._last_words()}")
                if time.monotonic() > deadline_s:
                    raise DemoError(f"{self.name} was not ready within {timeout_s:.0f} s: {self._last_words()}")
                await asyncio.sleep(_POLL_S)

    def ask_to_stop(self) -> None:
        """Ask it to drain and end; `stop` waits for that."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it: in order within some seconds, else by force. Not running is fine."""
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if guard is not None:
            guard.kill()
            guard.communicate()

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "its log is empty")
        return f"{last.strip()} (see {self.log_file})"


def _start_guard(pid: int) -> subprocess.Popen[bytes]:
    # A pipe closes however this process ends, SIGKILL included; only then the guard's `read` returns.
    return subprocess.Popen(  # noqa: S603  a fixed script, the id is its argument
        ["/bin/sh", "-c", 'read -r _; kill -TERM "$1"', "guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
