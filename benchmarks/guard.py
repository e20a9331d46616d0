"""Does a message still cost what it did? CPU of seal, open, publish, consume and request, against recorded ones.

    python -m benchmarks.guard [--margin 1.5] [--record] [--broker | --url amqp://…] [--slow publish=40]

Machines and their moods differ, so nothing is compared in microseconds: each figure is expressed in two units that are
measured beside it in the same run, an Ed25519 signature and verification (`crypto`) and a fixed loop of Python
(`python`). A step has become slow when it exceeds its recorded figure by the margin in both. The exit code is then 1.

Publish, consume and request go through whole services on the embedded broker, so nothing but Python is needed; with
`--broker` (a private RabbitMQ node) or `--url` also over AMQP. `--record` writes the figures of this run as the new
ones; `--slow STEP=MICROSECONDS` spends so much more in a step: to see that the guard barks.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel

from benchmarks.brokers import lent_or_private
from benchmarks.seal import Parties, order, sign_us, verify_us
from messaging import Command, Context, Request, Service, Settings
from messaging.security.keys import SigningKey
from messaging.settings import MEMORY_URL

__all__ = ["Figures", "exceeded", "main", "units_of"]

BASELINE: Final = Path(__file__).parent / "guard_baseline.json"
MARGIN: Final = 1.5
ROUNDS: Final = 9
MESSAGES: Final = 1_000
WINDOW: Final = 100
BATCH: Final = 16
UNITS: Final = ("crypto", "python")
_NOTE: Final = "n" * 400

Figures = Mapping[str, Mapping[str, float]]
"""Step -> unit -> how many of that unit one message costs."""


class PlaceOrder(Command, name="orders.place_order"):
    """What is sent here."""

    order_id: str
    note: str


class Answer(BaseModel):
    """What is answered."""

    order_id: str
    total: int


class FindOrder(Request[Answer], name="orders.find_order"):
    """What is asked."""

    order_id: str
    note: str


@dataclass
class Costs:
    """CPU microseconds per message of each step, and of each unit, round by round; `slow_us` is planted."""

    slow_us: Mapping[str, float] = field(default_factory=dict)
    found: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str, messages: int) -> Iterator[None]:
        """Measure what is done inside."""
        gc.collect()
        started_s = time.process_time()
        yield
        if name in self.slow_us:
            _burn(self.slow_us[name] * messages / 1e6)
        self.note(name, (time.process_time() - started_s) * 1e6 / messages)

    def note(self, name: str, cost_us: float) -> None:
        """Keep one figure."""
        self.found.setdefault(name, []).append(cost_us)

    def lowest(self) -> dict[str, float]:
        """Return the lowest of each: other work on the machine only ever adds."""
        return {name: min(costs) for name, costs in self.found.items()}


class _Thing:
    # What the fixed loop does: attributes, calls, dicts, small objects, as messages do.

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int, *, times: int = 1) -> tuple[int, int]:
        self.total += number * times
        return number, times


def python_us(rounds: int = 4_000) -> float:
    """Return what one round of the fixed loop costs now."""
    thing, kept = _Thing(), dict[int, tuple[int, int]]()
    started_s = time.process_time()
    for number in range(rounds):
        kept[number & 255] = thing.add(number, times=2)
        b"%d" % number
        str(number)
    return (time.process_time() - started_s) * 1e6 / rounds


def _burn(seconds: float) -> None:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def measure_sealing(costs: Costs, parties: Parties, *, messages: int) -> None:
    """Measure seal and open in batches of 16, models included."""
    orders = [order(number) for number in range(messages // BATCH * BATCH)]
    with costs.step("seal", len(orders)):
        bodies = parties.seal_models(orders, BATCH)
    with costs.step("open", len(orders)):
        parties.open_models(bodies)


async def measure_services(costs: Costs, url: str, *, suffix: str, messages: int) -> None:
    """Measure publish, consume and request through two services."""
    settings = Settings.development(broker_url=url, namespace="guard", prefetch=WINDOW)
    shop, orders = Service("shop", settings=settings), Service("orders", settings=settings)
    sent, done, left = asyncio.Event(), asyncio.Event(), itertools.count(messages - 1, -1)

    @orders.on_command(PlaceOrder)
    async def place(_: PlaceOrder, __: Context) -> None:
        # A service begins with one delivery at a time: the first one holds up all others.
        if not sent.is_set():
            await sent.wait()
        if not next(left):
            done.set()

    @orders.on_request(FindOrder)
    async def find(request: FindOrder, _: Context) -> Answer:
        return Answer(order_id=request.order_id, total=1)

    async def send(number: int) -> None:
        await shop.send(PlaceOrder(order_id=str(number), note=_NOTE))

    async def ask(number: int) -> None:
        await shop.request(FindOrder(order_id=str(number), note=_NOTE))

    async with orders, shop:
        await ask(0)
        with costs.step(f"publish{suffix}", messages):
            await _windowed(send, messages)
        with costs.step(f"consume{suffix}", messages):
            sent.set()
            await done.wait()
        with costs.step(f"request{suffix}", messages // 2):
            await _windowed(ask, messages // 2)


async def _windowed(act: Callable[[int], Awaitable[None]], count: int) -> None:
    room = asyncio.Semaphore(WINDOW)

    async def one(number: int) -> None:
        await act(number)
        room.release()

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await room.acquire()
            tasks.create_task(one(number))


def measure(*, rounds: int, messages: int, url: str | None, slow_us: Mapping[str, float]) -> dict[str, float]:
    """Return the lowest cost of each step and unit, CPU microseconds."""
    costs, parties, key = Costs(slow_us), Parties(1, 1), SigningKey.generate("guard")
    # The first round fills caches and is not counted.
    for turn in range(rounds + 1):
        if turn == 1:
            costs.found.clear()
        costs.note("crypto", sign_us(key, 0.01) + verify_us(key, 0.03))
        costs.note("python", python_us())
        measure_sealing(costs, parties, messages=messages)
        costs.note("python", python_us())
        asyncio.run(measure_services(costs, MEMORY_URL, suffix="", messages=messages))
        if url is not None:
            asyncio.run(measure_services(costs, url, suffix=" over AMQP", messages=messages))
    return costs.lowest()


def units_of(lowest: Mapping[str, float]) -> Figures:
    """Return the steps in the units of the same run."""
    steps = {name: cost for name, cost in lowest.items() if name not in UNITS}
    return {name: {unit: round(cost / lowest[unit], 3) for unit in UNITS} for name, cost in steps.items()}


def exceeded(now: Figures, recorded: Figures, margin: float) -> list[str]:
    """Return the steps that cost more than `margin` times what was recorded, in every unit.

    In one unit alone it may be a machine whose cryptography is slower beside its Python, not we.
    """
    return [
        name
        for name, figures in now.items()
        if name in recorded and all(figures[unit] > margin * recorded[name][unit] for unit in UNITS)
    ]


def table(lowest: Mapping[str, float], recorded: Figures, late: Sequence[str]) -> str:
    """Return it as text for a terminal."""
    lines = [
        f"an Ed25519 signature and verification {lowest['crypto']:.0f} µs, a round of Python {lowest['python']:.2f} µs",
        f"{'step':<20} {'µs':>7} {'crypto':>8} {'python':>8}  times what was recorded",
    ]
    for name, figures in units_of(lowest).items():
        known = recorded.get(name)
        times = "" if known is None else " and ".join(f"{figures[unit] / known[unit]:.2f}" for unit in UNITS)
        verdict = "  TOO SLOW" if name in late else ""
        lines.append(
            f"{name:<20} {lowest[name]:>7.1f} {figures['crypto']:>8.2f} {figures['python']:>8.1f}  {times}{verdict}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare, say so; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margin", type=float, default=MARGIN)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="per round and step")
    parser.add_argument("--record", action="store_true", help="make this run's figures the recorded ones")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--broker", action="store_true", help="measure on a private RabbitMQ node, too")
    parser.add_argument("--url", help="measure on this RabbitMQ, too")
    parser.add_argument("--slow", action="append", default=[], metavar="STEP=MICROSECONDS", help="plant a slowdown")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    slow_us = {name: float(cost) for name, _, cost in (each.partition("=") for each in options.slow)}
    with lent_or_private(options.url) if options.broker or options.url else contextlib.nullcontext((None, "")) as lent:
        lowest = measure(rounds=options.rounds, messages=options.messages, url=lent[0], slow_us=slow_us)
    recorded: Figures = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
    now = units_of(lowest)
    if options.record:
        options.baseline.write_text(json.dumps({**recorded, **now}, indent=1, sort_keys=True) + "\n")
        print(table(lowest, now, []))  # noqa: T201 - the program's output
        return 0
    late = exceeded(now, recorded, options.margin)
    print(table(lowest, recorded, late))  # noqa: T201 - the program's output
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
