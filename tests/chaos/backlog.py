"""A backlog before a slow consumer: the two programs, each of which says what it did.

`python -m tests.chaos.backlog publish --count N` sends numbered commands of a few keys, a number of them in flight, and
writes to its report how many were confirmed. `… consume --slow-s 1` handles them in partitions until SIGTERM, taking
so long for each, and reports which it handled and how many came out of the order of their key. Keys, broker and
namespace come from the environment.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from array import array
from pathlib import Path
from typing import Final

import structlog

from messaging import Command, Context, Service

__all__ = ["BEGUN", "KEYS", "PARTITIONS", "Number", "lane_of", "sluggard"]

PARTITIONS: Final = 4
KEYS: Final = 64
BEGUN: Final = "the first batch is confirmed"
_BATCH: Final = 512
_SEND_TIMEOUT_S: Final = 60.0
_NOTE: Final = "n" * 400


class Number(Command, name="sluggard.number", key="lane"):
    """One of many, about as large as a command usually is."""

    number: int
    lane: str
    note: str


class Handled:
    """What a consumer handled, in four bytes each: it must not be what grows."""

    def __init__(self) -> None:
        self.numbers = array("I")
        self.disordered = 0
        self._last: dict[str, int] = {}

    def note(self, command: Number) -> None:
        """One more."""
        self.numbers.append(command.number)
        # Equal is a repetition, which whoever compares the reports counts.
        self.disordered += command.number < self._last.get(command.lane, -1)
        self._last[command.lane] = command.number


def lane_of(number: int) -> str:
    """Return the key of a command."""
    return f"lane-{number % KEYS}"


def sluggard(handled: Handled, *, slow_s: float) -> Service:
    """Return the consumer."""
    service = Service("sluggard", partitions=PARTITIONS)

    @service.on_command(Number)
    async def take(command: Number, context: Context) -> None:
        if slow_s:
            await asyncio.sleep(slow_s)
        handled.note(command)

    return service


async def publish(count: int) -> dict[str, object]:
    """Send; returns the report."""
    async with Service("flood") as flood:
        began_s = time.monotonic()
        for first in range(0, count, _BATCH):
            numbers = range(first, min(count, first + _BATCH))
            commands = [Number(number=number, lane=lane_of(number), note=_NOTE) for number in numbers]
            await flood.send_many(commands, timeout=_SEND_TIMEOUT_S)
            if first == 0:
                print(BEGUN, flush=True)  # noqa: T201 - whoever watches it waits for this
    return {"confirmed": count, "took_s": time.monotonic() - began_s, "cpu_s": time.process_time()}


async def consume(slow_s: float, numbers: Path) -> dict[str, object]:
    """Handle until SIGTERM, and stop in order; returns the report."""
    handled, stopping = Handled(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with sluggard(handled, slow_s=slow_s):
        await stopping.wait()
    with numbers.open("wb") as out:
        handled.numbers.tofile(out)
    return {"handled": len(handled.numbers), "disordered": handled.disordered, "cpu_s": time.process_time()}


def main() -> None:
    """Play a role."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "consume"])
    parser.add_argument("report", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--slow-s", type=float, default=0.0)
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if options.role == "publish":
        report = asyncio.run(publish(options.count))
    else:
        report = asyncio.run(consume(options.slow_s, options.report.with_suffix(".numbers")))
    options.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
