"""`Supervisor`: keeps N worker processes running; stops, reloads and restarts them.

Rules:
- Every worker is the same program with the same arguments and a hidden number. It starts in a process group of its
  own, so that a Ctrl-C at the terminal reaches it once, through the supervisor.
- SIGTERM or SIGINT: each worker gets SIGTERM and drains. A second one: SIGKILL.
- A worker that dies is started again after a back-off, which starts over once a worker has lived a while. A worker that
  ends with a configuration or trust error would do so for ever: all stop, and its code is the supervisor's.
- The workers end with the supervisor, however that ends: each holds the end of a pipe whose other end closes with it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from messaging.cli.exits import Exit
from messaging.cli.watch import SourceWatch

__all__ = ["Supervisor", "restart_delay_s", "worker_command"]

_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30.0
# A worker that lived this long was healthy: its next crash is a new story.
_HEALTHY_S: Final = 30.0
_RELOAD_POLL_S: Final = 0.5
# Ends that a restart cannot mend.
_FINAL: Final = frozenset({int(Exit.CONFIGURATION), int(Exit.REFUSED)})

_log = structlog.get_logger(__name__)


def restart_delay_s(crashes: int) -> float:
    """Return how long to wait before a worker starts again after so many crashes in a row, from 1; seconds."""
    return min(_FIRST_DELAY_S * 2.0 ** min(crashes - 1, 16), _LONGEST_DELAY_S)


@dataclass(slots=True)
class _Worker:
    """One place for a worker: its process, and how often it crashed in a row."""

    number: int
    process: asyncio.subprocess.Process | None = None
    crashes: int = 0

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps worker processes running.

    Args:
        commands: The command line of each worker, without the descriptor of its lifeline.
        watch: Source files whose change restarts the workers, or None.
    """

    def __init__(self, commands: Sequence[Sequence[str]], *, watch: SourceWatch | None = None) -> None:
        self._commands = commands
        self._watch = watch
        self._workers = [_Worker(number) for number in range(len(commands))]
        self._is_stopping = False
        # Set when all workers are told to end; each reload takes a fresh one, so nobody can miss or repeat a turn.
        self._turn = asyncio.Event()
        self._lifeline = (-1, -1)
        self._exit_code = int(Exit.OK)

    async def run(self) -> int:
        """Run the workers until a stop signal, or until one cannot go on.

        Returns:
            0 when all drained, the worker's code when one could not start, 1 when one failed to stop cleanly.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._lifeline = os.pipe()
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(worker)) for worker in self._workers]
                watching = group.create_task(self._reload())
                await asyncio.wait(keepers)
                watching.cancel()
        finally:
            for descriptor in self._lifeline:
                os.close(descriptor)
        return self._exit_code

    def _on_signal(self, number: signal.Signals) -> None:
        if self._is_stopping:
            _log.warning("stop.forced", signal=number.name, workers=len(self._workers))
            self._exit_code = int(Exit.FAILURE)
            self._signal_all(signal.SIGKILL)
            return
        _log.info("stop.requested", signal=number.name, workers=len(self._workers))
        self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._turn.set()
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)

    async def _keep(self, worker: _Worker) -> None:
        """Start the worker, and again whenever it ends, until all stop."""
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            turn = self._turn
            started_s = loop.time()
            code = await self._live(worker, turn)
            if turn.is_set():
                worker.crashes = 0
                self._note_end(worker, code)
                continue
            if code in _FINAL and self._watch is None:
                _log.error("worker.abandoned", worker=worker.number, exit_code=code)
                self._exit_code = code
                self._stop()
                return
            worker.crashes = 1 if loop.time() - started_s > _HEALTHY_S else worker.crashes + 1
            await self._wait_before_restart(worker, code, turn)

    async def _live(self, worker: _Worker, turn: asyncio.Event) -> int:
        read_end, _ = self._lifeline
        command = [*self._commands[worker.number], "--lifeline", str(read_end)]
        worker.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=(read_end,), process_group=0
        )
        _log.info("worker.started", worker=worker.number, pid=worker.process.pid)
        # A signal that came while the process was being made found nobody to tell.
        if turn.is_set():
            worker.signal(signal.SIGTERM)
        return await worker.process.wait()

    def _note_end(self, worker: _Worker, code: int) -> None:
        # -SIGTERM: it had not come far enough to drain anything.
        is_clean = code in (int(Exit.OK), -signal.SIGTERM)
        if self._is_stopping and not is_clean and self._exit_code == int(Exit.OK):
            self._exit_code = int(Exit.FAILURE)
        _log.info("worker.stopped", worker=worker.number, exit_code=code)

    async def _wait_before_restart(self, worker: _Worker, code: int, turn: asyncio.Event) -> None:
        # With --reload a broken file is mended by the next edit, not by waiting.
        delay_s = restart_delay_s(worker.crashes) if self._watch is None else None
        _log.error("worker.crashed", worker=worker.number, exit_code=code, crashes=worker.crashes, restart_in_s=delay_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await turn.wait()

    async def _reload(self) -> None:
        """Restart all workers whenever a source file changes."""
        while self._watch is not None:
            await asyncio.sleep(_RELOAD_POLL_S)
            path = self._watch.changed()
            if path is None or self._is_stopping:
                continue
            _log.info("source.changed", file=path.name)
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()
            self._signal_all(signal.SIGTERM)


def worker_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of this same program with other arguments."""
    return [sys.executable, "-m", "messaging", *arguments]
