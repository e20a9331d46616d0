"""What each program of the comparison does alike: options, the measured stretch, its report. Standard library only.

A program has up to four roles, each a process of its own: `publish`, `consume`, `serve`, `request`. It measures itself:
wall time, and CPU time of the whole process (user and system, all threads). A tenth of the messages warm it up first.
On standard output it says `READY` when it serves, `BEGIN` and `END` around the measured stretch, and its report last.
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = [
    "REPORT",
    "Countdown",
    "Json",
    "Options",
    "Stretch",
    "acknowledged",
    "drive",
    "drive_threads",
    "percentiles",
    "ready",
    "report",
    "say",
    "versions",
]

REPORT: Final = "REPORT "
FLUSH_S: Final = 0.5
_PR_SET_PDEATHSIG: Final = 1
_MIB: Final = 1024 * 1024

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a program is asked to do.

    Attributes:
        role: publish, consume, serve or request; ours know `declare` too.
        url: Of the broker; for HTTP of the server.
        queue: Where orders wait; peers declare it in their own way.
        messages: How many are measured with a window of them in flight.
        sequential: How many are measured one at a time, afterwards.
        window: How many may be in flight; for consumers the prefetch.
        certificate: File with the server's certificate and its key, for HTTPS.
    """

    role: str
    url: str
    queue: str
    messages: int
    sequential: int
    window: int
    certificate: str = ""

    @classmethod
    def parse(cls) -> "Options":
        """Return what the command line says; this process then ends with the one that started it."""
        parser = argparse.ArgumentParser()
        parser.add_argument("role", choices=["declare", "publish", "consume", "serve", "request"])
        parser.add_argument("--url", required=True)
        parser.add_argument("--queue", default="bench.orders")
        parser.add_argument("--messages", type=int, default=1000)
        parser.add_argument("--sequential", type=int, default=0)
        parser.add_argument("--window", type=int, default=100)
        parser.add_argument("--certificate", default="")
        options = cls(**vars(parser.parse_args()))
        end_with_parent()
        return options

    @property
    def warm_up(self) -> int:
        """Messages that come first and do not count."""
        return max(1, self.messages // 10)

    @property
    def backlog(self) -> int:
        """All messages that a publisher leaves in the queue, which is what a consumer finds there."""
        return self.warm_up + self.messages + self.sequential


class Stretch:
    """One measured stretch: begins when it is made, ends once."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def end(self, messages: int, latencies_s: Sequence[float] = ()) -> Json:
        """Return what `messages` cost since it began, and how long each took."""
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        found: Json = {"messages": messages, "wall_s": wall_s, "cpu_s": cpu_s}
        return {**found, "latency_ms": percentiles(latencies_s)} if latencies_s else found


class Countdown:
    """For consumers: told of each handled message, measures all that come after the warm-up.

    Args:
        options: Says how many there are.
        on_done: Called at the last one.
    """

    def __init__(self, options: Options, on_done: Callable[[], object] = lambda: None) -> None:
        self._left = options.backlog
        self._counted = options.backlog - options.warm_up
        self._on_done = on_done
        self._stretch: Stretch | None = None
        self.found: Json = {}

    def count(self) -> None:
        """One message was handled."""
        self._left -= 1
        if self._left == self._counted:
            self._stretch = Stretch()
        elif self._left == 0 and self._stretch is not None:
            self.found = self._stretch.end(self._counted)
            self._on_done()


async def acknowledged() -> None:
    """Wait until the last acknowledgements have left; closing a connection at once would drop them."""
    await asyncio.sleep(FLUSH_S)


async def drive(
    send: Callable[[int], Awaitable[object]], options: Options, *, at_edge: Callable[[], object] = lambda: None
) -> Json:
    """Send as asyncio programs do, `window` at once and then one at a time, and return what it cost.

    Args:
        send: Sends the message of a number and returns when the broker has confirmed it, or with the answer.
        options: How many, and how many at once.
        at_edge: Called before the first stretch, with several in flight, and after it.
    """
    await _windowed(send, options.warm_up, options.window)
    at_edge()
    say("BEGIN")
    stretch = Stretch()
    latencies_s = await _windowed(send, options.messages, options.window)
    found: Json = {"windowed": stretch.end(options.messages, latencies_s)}
    at_edge()
    say("END")
    if options.sequential:
        stretch = Stretch()
        latencies_s = await _windowed(send, options.sequential, 1)
        found["sequential"] = stretch.end(options.sequential, latencies_s)
    return found


async def _windowed(send: Callable[[int], Awaitable[object]], count: int, window: int) -> list[float]:
    numbers = iter(range(count))
    latencies_s: list[float] = []

    async def sender() -> None:
        for number in numbers:
            began_s = time.perf_counter()
            await send(number)
            latencies_s.append(time.perf_counter() - began_s)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(window, count)):
            tasks.create_task(sender())
    return latencies_s


def drive_threads(send: Callable[[int], object], options: Options, *, threads: int) -> Json:
    """Send as blocking programs do: from several threads, and then from one; return what it cost.

    Args:
        send: Sends the message of a number and returns when the broker has confirmed it, or with the answer.
        options: How many.
        threads: How many at once; 1 sends from this thread.
    """
    with ThreadPoolExecutor(threads) as pool:

        def all_of(count: int) -> list[float]:
            return _one_by_one(send, range(count)) if threads == 1 else _shared(pool, send, count, threads)

        all_of(options.warm_up)
        say("BEGIN")
        stretch = Stretch()
        found: Json = {"windowed": stretch.end(options.messages, all_of(options.messages))}
        say("END")
        if options.sequential:
            stretch = Stretch()
            found["sequential"] = stretch.end(options.sequential, _one_by_one(send, range(options.sequential)))
    return found


def _one_by_one(send: Callable[[int], object], numbers: range) -> list[float]:
    latencies_s: list[float] = []
    for number in numbers:
        began_s = time.perf_counter()
        send(number)
        latencies_s.append(time.perf_counter() - began_s)
    return latencies_s


def _shared(pool: ThreadPoolExecutor, send: Callable[[int], object], count: int, threads: int) -> list[float]:
    shares = [pool.submit(_one_by_one, send, range(first, count, threads)) for first in range(threads)]
    return [latency_s for share in shares for latency_s in share.result()]


def percentiles(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 90th and 99th percentile and the longest, in milliseconds (nearest rank)."""
    ordered = sorted(latencies_s)
    last = len(ordered) - 1
    return {
        **{f"p{rank}": ordered[min(last, len(ordered) * rank // 100)] * 1e3 for rank in (50, 90, 99)},
        "max": ordered[last] * 1e3,
    }


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed distributions."""
    return {name: version(name) for name in names}


def say(word: str) -> None:
    """Tell whoever started this process, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def ready() -> None:
    """Say that this process serves."""
    say("READY")


def report(found: Json, *, settings: str, used: dict[str, str]) -> None:
    """Say what was found, as the last line.

    Args:
        found: Stretches by name.
        settings: What was set, for whoever reads the table.
        used: Versions by distribution.
    """
    say(REPORT + json.dumps({**found, "peak_rss_mib": peak_rss_mib(), "settings": settings, "versions": used}))


def peak_rss_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            # Unlike what `getrusage` says, this begins anew when a program is started.
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB


def end_with_parent() -> None:
    """Make this process end with the one that started it, however that ends."""
    # Linux only; elsewhere an aborted run may leave a program behind until its own end.
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
