"""The runs behind the curves: which processes are started for a point, and which of their figures it takes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import transport
from benchmarks.brokers import open_queues
from benchmarks.curve_fits import Curve, Point
from benchmarks.grounds import Ground
from benchmarks.keys import write_crowd, write_keys
from benchmarks.programs import Program, running
from tests.chaos.cluster import run_cluster

__all__ = ["Bench", "Scale"]

READY_S: Final = 60.0
# Enough for a million messages on a slow machine.
RUN_S: Final = 1800.0
BODIES_MAX_BYTES: Final = 48 * 1024 * 1024
NAMESPACE: Final = "curves"
COMMANDS: Final = f"{NAMESPACE}.orders.commands"
WINDOW: Final = 100

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How far the curves go.

    Attributes:
        messages, bodies, recipients, services, workers, depths: Their places; depths are windows and prefetches.
        body_messages: Most messages of one size.
        count: Messages for a point of the others.
        share: Messages that workers share.
        runs: Runs for each point.
    """

    messages: Sequence[int]
    bodies: Sequence[int]
    body_messages: int
    recipients: Sequence[int]
    services: Sequence[int]
    workers: Sequence[int]
    depths: Sequence[int]
    count: int
    share: int
    runs: int


class Bench:
    """Measures curves on one broker.

    Args:
        url: Of the broker.
        scale: How far.
        folder: For keys.
        tell: Told what goes on.
    """

    def __init__(self, url: str, scale: Scale, folder: Path, tell: Callable[[str], None]) -> None:
        self._url = url
        self._scale = scale
        self._folder = folder
        self._tell = tell

    async def messages(self) -> Curve:
        """Measure CPU seconds by number of messages."""
        keys = self._keys("plain")
        points = []
        await self._alone(keys, "declare")
        for count in self._scale.messages:
            sent = await self._alone(keys, "publish", "--count", count)
            handled = await self._alone(keys, "consume", "--count", count + 16)
            points.append(Point(count, {"publish": _of(sent, "cpu_s"), "consume": _of(handled, "cpu_s")}))
            self._tell(f"messages {count}: {_rate(sent):.0f}/s sent, {_rate(handled):.0f}/s handled")
        return Curve(
            name="messages",
            title="CPU time by number of messages",
            x_title="messages",
            y_title="CPU seconds in all",
            unit="s",
            of="message",
            points=points,
            is_log=True,
        )

    async def bodies(self) -> Curve:
        """Measure CPU time for each message by the size of its body."""
        keys = self._keys("plain")
        points = []
        await self._alone(keys, "declare")
        for size_bytes in self._scale.bodies:
            count = max(24, min(self._scale.body_messages, BODIES_MAX_BYTES // size_bytes))
            sent, handled = await self._both(keys, count, "--blob", size_bytes)
            points.append(Point(size_bytes, {"publish": _us(sent), "consume": _us(handled)}))
            self._tell(f"body {size_bytes}: {_us(sent):.0f} µs sent, {_us(handled):.0f} µs handled")
        return Curve(
            name="body",
            title="CPU time by size of the body",
            x_title="bytes",
            y_title="CPU µs for each message",
            unit="µs",
            of="byte",
            points=points,
            is_log=True,
        )

    async def recipients(self) -> Curve:
        """Measure CPU time of an event by the number of services that hear it."""
        points = []
        for readers in self._scale.recipients:
            # A namespace of its own: queues of more readers than this would fill up.
            keys = self._keys(f"readers{readers}", subscribers=readers)
            own = {**keys, "MESSAGING_NAMESPACE": f"readers{readers}"}
            await self._alone(own, "declare", "--readers", readers)
            sent = await self._least(own, "publish", "--count", self._scale.count, "--event")
            total = self._scale.runs * (self._scale.count + 16)
            handled = await self._alone(own, "consume", "--count", total, "--event", "--service", "reader0")
            points.append(Point(readers, {"publish": _us(sent), "consume, each": _us(handled)}))
            self._tell(f"recipients {readers}: {_us(sent):.0f} µs sent, {_us(handled):.0f} µs handled")
            await self._forget([f"readers{readers}.reader{number}.events" for number in range(readers)])
        return Curve(
            name="recipients",
            title="CPU time of an event by its recipients",
            x_title="recipients",
            y_title="CPU µs for each event",
            unit="µs",
            of="recipient",
            points=points,
        )

    async def services(self) -> Curve:
        """Measure CPU time and start by the number of services that the trust bundle knows."""
        points = []
        for bystanders in self._scale.services:
            keys = self._crowd(bystanders)
            await self._alone(keys, "declare")
            sent, handled = await self._both(keys, self._scale.count)
            values = {
                "publish, µs": _us(sent),
                "consume, µs": _us(handled),
                "start, ms": _of(sent, "started_s") * 1e3,
                "memory, MiB": _of(sent, "rss_mib"),
            }
            points.append(Point(bystanders + 2, values))
            self._tell(f"services {bystanders}: " + ", ".join(f"{name} {value:.0f}" for name, value in values.items()))
        return Curve(
            name="services",
            title="Costs by services in the trust bundle",
            x_title="services",
            y_title="µs for each message, ms to start, MiB",
            unit="",
            of="service",
            points=points,
        )

    async def workers(self) -> Curve:
        """Measure throughput by the number of processes that share a backlog."""
        keys = self._keys("plain")
        points = []
        await self._alone(keys, "declare")
        for workers in self._scale.workers:
            await self._alone(keys, "publish", "--count", self._scale.share)
            reports = await self._together(keys, workers)
            began_s = min(_of(report, "began_s") for report in reports)
            ended_s = max(_of(report, "ended_s") for report in reports)
            handled = sum(_of(report, "messages") for report in reports)
            cpu_us = sum(_of(report, "cpu_s") for report in reports) * 1e6 / handled
            points.append(Point(workers, {"messages/s": handled / (ended_s - began_s)}))
            self._tell(f"workers {workers}: {points[-1].values['messages/s']:.0f}/s at {cpu_us:.0f} µs")
        return Curve(
            name="workers",
            title="Throughput by workers",
            x_title="processes",
            y_title="messages/s, consumed by all",
            unit="messages/s",
            of="process",
            points=points,
            is_cost=False,
        )

    async def prefetch(self) -> Curve:
        """Measure throughput of consuming by prefetch."""
        keys = self._keys("plain")
        points = []
        await self._alone(keys, "declare")
        for depth in self._scale.depths:
            await self._alone(keys, "publish", "--count", self._scale.count)
            handled = await self._alone(keys, "consume", "--count", self._scale.count + 16, "--window", depth)
            points.append(Point(depth, {"consume": _rate(handled)}))
            self._tell(f"prefetch {depth}: {_rate(handled):.0f}/s")
        return Curve(
            name="prefetch",
            title="Throughput by prefetch",
            x_title="prefetch",
            y_title="messages/s",
            unit="messages/s",
            of="delivery",
            points=points,
            is_cost=False,
        )

    async def window(self) -> Curve:
        """Measure throughput of publishing by how many are in flight."""
        keys = self._keys("plain")
        points = []
        await self._alone(keys, "declare")
        for depth in self._scale.depths:
            sent = await self._least(keys, "publish", "--count", self._scale.count, "--window", depth)
            points.append(Point(depth, {"publish": _rate(sent)}))
            self._tell(f"window {depth}: {_rate(sent):.0f}/s")
            await self._forget([COMMANDS])
        return Curve(
            name="window",
            title="Throughput by window",
            x_title="in flight",
            y_title="messages/s",
            unit="messages/s",
            of="message in flight",
            points=points,
            is_cost=False,
        )

    async def queues(self, *, with_cluster: bool) -> Curve:
        """Measure the transport on classic and quorum queues, on one node and on three."""
        points = [Point(1, await self._transport(Ground(url=self._url, title="a node")))]
        if with_cluster:
            with run_cluster() as nodes:
                points.append(Point(len(nodes), await self._transport(Ground(url=nodes[0].url, title="a cluster"))))
        return Curve(
            name="queues",
            title="Transport by queue type and nodes",
            x_title="nodes",
            y_title="messages/s of 1 KiB",
            unit="messages/s",
            of="node",
            points=points,
            is_cost=False,
        )

    async def _transport(self, ground: Ground) -> dict[str, float]:
        found = await transport.measure(
            ground, messages=self._scale.count, rounds=self._scale.runs, layers=("transport",), paths=("fast",)
        )
        for row in found:
            self._tell(f"{row.queue}: {row.publish_per_s:.0f}/s sent, {row.consume_per_s:.0f}/s handled")
        return {f"publish, {row.queue}": row.publish_per_s for row in found} | {
            f"consume, {row.queue}": row.consume_per_s for row in found
        }

    # ---- processes

    def _crowd(self, bystanders: int) -> dict[str, str]:
        folder = self._folder / f"bystanders{bystanders}"
        write_crowd(folder, bystanders=bystanders)
        return {"MESSAGING_KEYS": str(folder), "MESSAGING_NAMESPACE": NAMESPACE}

    def _keys(self, name: str, *, subscribers: int = 0) -> dict[str, str]:
        folder = self._folder / name
        if not folder.exists():
            write_keys(folder, subscribers=subscribers)
        return {"MESSAGING_KEYS": str(folder), "MESSAGING_NAMESPACE": NAMESPACE}

    async def _both(self, keys: Mapping[str, str], count: int, *arguments: object) -> tuple[Json, Json]:
        """Publish and consume several times; return the cheapest of each."""
        pairs = []
        for _ in range(self._scale.runs):
            sent = await self._alone(keys, "publish", "--count", count, "--window", min(WINDOW, count), *arguments)
            # Those that warm the publisher up come as well.
            pairs.append((sent, await self._alone(keys, "consume", "--count", count + 16)))
        return min((sent for sent, _ in pairs), key=_us), min((handled for _, handled in pairs), key=_us)

    async def _least(self, keys: Mapping[str, str], role: str, *arguments: object) -> Json:
        return min([await self._alone(keys, role, *arguments) for _ in range(self._scale.runs)], key=_us)

    async def _alone(self, keys: Mapping[str, str], role: str, *arguments: object) -> Json:
        async with self._program(keys, role, *arguments) as program:
            if role == "declare":
                await program.ended(timeout_s=READY_S)
                return {}
            report = await program.report(timeout_s=RUN_S)
            await program.ended(timeout_s=READY_S)
            return report

    async def _together(self, keys: Mapping[str, str], workers: int) -> list[Json]:
        """Let several processes share what waits, all beginning at once."""
        async with contextlib.AsyncExitStack() as stack:
            programs = [
                await stack.enter_async_context(
                    self._program(keys, "consume", "--count", self._scale.share * 2, "--gate", "--window", WINDOW)
                )
                for _ in range(workers)
            ]
            for program in programs:
                await program.said("READY", timeout_s=READY_S)
            for program in programs:
                os.kill(program.pid, signal.SIGUSR1)
            return list(await asyncio.gather(*(program.report(timeout_s=RUN_S) for program in programs)))

    @contextlib.asynccontextmanager
    async def _program(self, keys: Mapping[str, str], role: str, *arguments: object) -> AsyncIterator[Program]:
        command = [sys.executable, "-m", "benchmarks.load", role, "--url", self._url, *(str(one) for one in arguments)]
        async with running(command, title=f"load {role}", environment=keys) as program:
            yield program

    async def _forget(self, names: Sequence[str]) -> None:
        async with open_queues(self._url) as queues:
            for name in names:
                await queues.purge(name)


def _of(report: Json, name: str) -> float:
    return float(str(report[name]))


def _us(report: Json) -> float:
    return _of(report, "cpu_s") * 1e6 / _of(report, "messages")


def _rate(report: Json) -> float:
    return _of(report, "messages") / _of(report, "wall_s")
