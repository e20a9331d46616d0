"""Our services under a load of chosen shape, for curves and for runs of millions; each role a process of its own.

    python -m benchmarks.load declare|publish|consume --url amqp://… --count 10000 [--blob 1024] [--window 100] …

Messages are the command of `benchmarks.ours`, or with `--event` an event that `--readers` services hear. A consumer
ends once it has handled `--count`, or when nothing has come for a second: several may share a backlog, and with
`--gate` they wait for SIGUSR1 before they handle the first. Clocks are the system's, so that processes can be compared.
Every twentieth of the way each notes time, CPU time and memory.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

import psutil
import structlog

from benchmarks.keys import ORDER_PLACED
from benchmarks.ours import OWNER, SENDER, PlaceOrder
from benchmarks.peers.order import MADE_BEFOREHAND, Line, order_fields
from benchmarks.peers.role import REPORT, Json, end_with_parent, ready, say
from messaging import Command, Context, Event, Service, Settings

__all__ = ["Log", "OrderPlaced", "PlaceBlob", "main"]

NOTES: Final = 20
IDLE_S: Final = 1.0
_MIB: Final = 1024 * 1024


class OrderPlaced(Event, name=ORDER_PLACED):
    """The order of `benchmarks.peers.order`, as an event."""

    order_id: UUID
    customer: str
    email: str
    currency: str
    total_cents: int
    lines: list[Line]
    note: str


class PlaceBlob(Command, name="orders.place_blob"):
    """Bytes of any length, for curves over the size of bodies."""

    content: bytes


class Log:
    """What a process notes on its way.

    Args:
        count: How many messages there will be.
        read: Returns the time, CPU seconds and MiB held; replaced in tests.
    """

    def __init__(self, count: int, read: Callable[[], tuple[float, float, float]] | None = None) -> None:
        self._read = _measured() if read is None else read
        self._every = max(1, count // NOTES)
        self.done = 0
        self._last_s = 0.0
        self.notes: list[tuple[int, float, float, float]] = []

    def begin(self) -> None:
        """Note the start."""
        self.note()

    def count(self) -> None:
        """One message more."""
        self.done += 1
        self._last_s = time.monotonic()
        if self.done % self._every == 0:
            self.note()

    def note(self) -> None:
        """Note how far it is, and what that took."""
        self.notes.append((self.done, *self._read()))

    def report(self) -> Json:
        """Return all notes and what lies between the first and the last."""
        if self.notes[-1][0] != self.done:
            # Not now but when the last one came: who shares a backlog waits for more before it reports.
            self.notes.append((self.done, self._last_s, *self._read()[1:]))
        (first, began_s, cpu_began_s, _), (last, ended_s, cpu_ended_s, _) = self.notes[0], self.notes[-1]
        return {
            "messages": last - first,
            "began_s": began_s,
            "ended_s": ended_s,
            "wall_s": ended_s - began_s,
            "cpu_s": cpu_ended_s - cpu_began_s,
            "rss_mib": max(rss_mib for *_, rss_mib in self.notes),
            "notes": [
                {"messages": done, "s": at_s - began_s, "cpu_s": cpu_s - cpu_began_s, "rss_mib": rss_mib}
                for done, at_s, cpu_s, rss_mib in self.notes
            ],
        }


def _measured() -> Callable[[], tuple[float, float, float]]:
    process = psutil.Process()
    return lambda: (time.monotonic(), time.process_time(), process.memory_info().rss / _MIB)


def settings_of(options: argparse.Namespace, *, prefetch: int = 64) -> Settings:
    """Return the settings: the environment's, with this broker."""
    return Settings(broker_url=options.url, prefetch=prefetch)


def hearers(options: argparse.Namespace) -> list[Service]:
    """Return the services whose queues are to be made."""

    async def hear(event: OrderPlaced, context: Context) -> None: ...

    async def place(command: PlaceOrder, context: Context) -> None: ...

    async def keep(command: PlaceBlob, context: Context) -> None: ...

    owner = Service(OWNER, settings_of(options))
    owner.on_command(PlaceOrder)(place)
    owner.on_command(PlaceBlob)(keep)
    readers = [Service(f"reader{number}", settings_of(options)) for number in range(options.readers)]
    for reader in readers:
        reader.on_event(OrderPlaced)(hear)
    return [owner, *readers]


def messages_of(options: argparse.Namespace) -> Sequence[Command | Event]:
    """Return what is sent in turn."""
    if options.blob is not None:
        return [PlaceBlob(content=bytes([number]) * options.blob) for number in range(4)]
    model: type[Command | Event] = OrderPlaced if options.event else PlaceOrder
    return [model.model_validate(order_fields(number)) for number in range(MADE_BEFOREHAND)]


async def declare(options: argparse.Namespace) -> None:
    """Make the queues."""
    async with AsyncExitStack() as stack:
        for service in hearers(options):
            await stack.enter_async_context(service)


async def publish(options: argparse.Namespace) -> None:
    """Send messages with a window of them in flight."""
    messages = messages_of(options)
    began_s = time.monotonic()
    service = Service(OWNER if options.event else SENDER, settings_of(options))
    log = Log(options.count)

    async def send(numbers: Iterator[int]) -> None:
        for number in numbers:
            message = messages[number % len(messages)]
            if isinstance(message, Event):
                await service.publish(message, timeout=60.0)
            else:
                await service.send(message, timeout=60.0)
            log.count()

    async with service:
        started_s = time.monotonic() - began_s
        await send(iter(range(min(options.window, 16))))
        log = Log(options.count)
        log.begin()
        numbers = iter(range(options.count))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(options.window, options.count)):
                tasks.create_task(send(numbers))
        report = log.report()
    say(REPORT + json.dumps({**report, "started_s": started_s}))


async def consume(options: argparse.Namespace) -> None:
    """Handle messages until they are all handled, or no more come."""
    gate, done = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gate.set)
    if not options.gate:
        gate.set()
    service = Service(options.service, settings_of(options, prefetch=options.window))
    log = Log(options.count)

    async def handle() -> None:
        if not gate.is_set():
            await gate.wait()
        if not log.notes:
            log.begin()
        log.count()
        if log.done == options.count:
            done.set()

    take(service, handle, hears=options.event)
    async with service:
        ready()
        await gate.wait()
        await finished(log, done)
        report = log.report()
    say(REPORT + json.dumps(report))


def take(service: Service, handle: Callable[[], Awaitable[None]], *, hears: bool) -> None:
    """Let a service handle all that is sent here."""
    if hears:

        @service.on_event(OrderPlaced)
        async def hear(event: OrderPlaced, context: Context) -> None:
            await handle()

        return

    @service.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None:
        await handle()

    @service.on_command(PlaceBlob)
    async def keep(command: PlaceBlob, context: Context) -> None:
        await handle()


async def finished(log: Log, done: asyncio.Event) -> None:
    """Wait until all were handled, or nothing has come for a while."""
    before = -1
    while not done.is_set() and before != log.done:
        before = log.done
        try:
            async with asyncio.timeout(IDLE_S):
                await done.wait()
        except TimeoutError:
            continue


def main() -> None:
    """Play a role."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["declare", "publish", "consume"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--blob", type=int, help="send this many bytes instead of orders")
    parser.add_argument("--window", type=int, default=100, help="in flight; for consumers the prefetch")
    parser.add_argument("--event", action="store_true")
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--service", default=OWNER)
    parser.add_argument("--gate", action="store_true")
    options = parser.parse_args()
    end_with_parent()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run({"declare": declare, "publish": publish, "consume": consume}[options.role](options))


if __name__ == "__main__":
    main()
