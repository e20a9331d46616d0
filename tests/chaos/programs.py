"""Processes under fire: killed, stopped and continued at will, and never left behind, however the tests end."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.support.installation import ROOT, ask

__all__ = ["Program", "Worker"]

_POLL_S: Final = 0.1
_START_TIMEOUT_S: Final = 90.0
_KILL_TIMEOUT_S: Final = 20.0


class Program:
    """One process with its log in a file.

    Args:
        arguments: What stands behind `python -m`.
        environment: All of its environment.
        log_file: Where its output goes.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], log_file: Path) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # A pipe closes however the tests end, SIGKILL included. KILL, because a stopped process hears nothing else.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -KILL "$1"', "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal; gone already is fine."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def ended(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        try:
            return await asyncio.to_thread(self._process.wait, timeout_s)
        finally:
            if not self.is_running:
                self._dismiss_guard()

    def kill(self) -> None:
        """End it at once and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait(_KILL_TIMEOUT_S)
        self._dismiss_guard()

    def last_words(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])

    def events(self) -> Iterator[dict[str, Any]]:
        """Return the lines of its log that are events."""
        for line in self.log_file.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "event" in found:
                    yield found

    def _dismiss_guard(self) -> None:
        self._guard.kill()
        self._guard.communicate()


class Worker(Program):
    """A process of a service, with a health port.

    Args:
        service: `chaos` or `witness`.
        environment: All of its environment.
        port: Of its health answers.
        log_file: Where its output goes.
    """

    def __init__(self, service: str, *, environment: Mapping[str, str], port: int, log_file: Path) -> None:
        self.service = service
        self.port = port
        arguments = ["messaging", "run", f"tests.chaos.worker:{service}", "--log-format", "json"]
        super().__init__([*arguments, "--health-port", str(port)], environment=environment, log_file=log_file)

    async def ready(self) -> None:
        """Wait until it is fed by the broker, or has died, as some are told to."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while self.is_running and not await self.is_ready():
            assert time.monotonic() < deadline_s, f"worker {self.pid} was not ready: {self.last_words()}"
            await asyncio.sleep(_POLL_S)

    async def is_ready(self) -> bool:
        """Tell what its readiness probe says."""
        return bool((await asyncio.to_thread(ask, self.port)).get("ready"))
