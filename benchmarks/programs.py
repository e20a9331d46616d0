"""Programs of a benchmark as processes: started, listened to, measured from outside, ended; every wait is bounded.

A program leads a process group of its own, so that whatever it started goes with it, and dies with the benchmark even
if that is killed (`benchmarks.peers.role`). What it says on standard error is kept, for the reason if it fails.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypeVar, cast

import psutil

from benchmarks.peers.role import REPORT

__all__ = ["Program", "ProgramError", "cpu_s_of", "rss_mib_of", "run_benchmark", "running"]

END_TIMEOUT_S: Final = 8.0
REASON_CHARACTERS: Final = 300
_NANOSECONDS: Final = 1e9
_MIB: Final = 1024 * 1024

Json = dict[str, object]
T = TypeVar("T")


class ProgramError(Exception):
    """A program failed, or took too long; the message carries what it said last."""


class Program:
    """One running program.

    Args:
        process: The leader of its process group.
        complaints: Where its standard error goes.
        title: How messages name it.
    """

    def __init__(self, process: asyncio.subprocess.Process, complaints: IO[bytes], *, title: str) -> None:
        self._process = process
        self._complaints = complaints
        self.title = title

    @property
    def pid(self) -> int:
        """Process id of the group's leader."""
        return self._process.pid

    async def said(self, word: str, *, timeout_s: float) -> str:
        """Wait for a line that begins with a word, and return the rest of it.

        Raises:
            ProgramError: it ended before, or said nothing of the kind in time.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                async for line in self._process.stdout:
                    text = line.decode(errors="replace").rstrip()
                    if text.startswith(word):
                        return text.removeprefix(word)
                await self._process.wait()
        except TimeoutError:
            raise ProgramError(f"{self.title} took longer than {timeout_s:g} s: {self._last_words()}") from None
        raise ProgramError(f"{self.title} ended with {self._process.returncode}: {self._last_words()}")

    async def report(self, *, timeout_s: float) -> Json:
        """Wait for the program's report.

        Raises:
            ProgramError: there is none.
        """
        return cast("Json", json.loads(await self.said(REPORT, timeout_s=timeout_s)))

    async def ended(self, *, timeout_s: float = END_TIMEOUT_S) -> None:
        """Wait until it has ended by itself.

        Raises:
            ProgramError: it failed, or goes on.
        """
        try:
            async with asyncio.timeout(timeout_s):
                code = await self._process.wait()
        except TimeoutError:
            raise ProgramError(f"{self.title} reported, but did not end: {self._last_words()}") from None
        if code != 0:
            raise ProgramError(f"{self.title} ended with {code}: {self._last_words()}")

    async def end(self) -> None:
        """End it and all that it started; in order first, by force if that takes too long."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._process.wait()
                    break
        # A leader that ended in order may have left others of its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints.read().decode(errors="replace").splitlines()]
        return next((line[:REASON_CHARACTERS] for line in reversed(lines) if line), "it said nothing")


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str | Path], *, title: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run a program for the time of the block.

    Args:
        command: Program and arguments.
        title: How messages name it.
        environment: Added to this process's own.
    """
    root = Path(__file__).parent.parent
    ours = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=root,
            env=ours,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        program = Program(process, complaints, title=title)
        try:
            yield program
        finally:
            await program.end()


def run_benchmark(work: Coroutine[object, object, T]) -> T:
    """Run a benchmark to its end; SIGTERM ends it in order like Ctrl-C, with everything that it started.

    Raises:
        SystemExit: it was ended.
    """

    async def endable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(endable())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def cpu_s_of(pid: int) -> float:
    """Return CPU seconds that a process, its threads and its children have used so far, user and system."""
    return sum(_own_cpu_s(process) for process in _family(pid))


def rss_mib_of(pid: int) -> float:
    """Return the memory that a process and its children hold now, in MiB; shared pages count for each."""
    return sum(process.memory_info().rss for process in _family(pid)) / _MIB


def _family(pid: int) -> list[psutil.Process]:
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def _own_cpu_s(process: psutil.Process) -> float:
    threads = Path("/proc") / str(process.pid) / "task"
    if sys.platform.startswith("linux") and threads.exists():
        # In nanoseconds; the usual counters advance by whole hundredths of a second.
        return sum(_nanoseconds(thread / "schedstat") for thread in threads.iterdir()) / _NANOSECONDS
    times = process.cpu_times()
    return float(times.user + times.system)


def _nanoseconds(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except (OSError, IndexError):
        # The thread ended meanwhile.
        return 0
