"""A backlog before a consumer that is too slow for it: memory of both ends stays bounded, order holds, nothing is lost.

A publisher sends as fast as the broker confirms while a consumer handles some dozens a second; then that consumer
works for a while before all that waits; it stops in order, and what it handled and what the broker still has must be
everything. A fast consumer takes the rest. `CHAOS_BACKLOG=1000000 make chaos` is the full size, some ten minutes.
"""

import asyncio
import json
import os
import random
import signal
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiormq
import pytest

from messaging.ambient import real_ambient
from messaging.cli.broker_node import PrivateNode
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from tests.chaos.backlog import BEGUN, KEYS, Handled, sluggard
from tests.chaos.conftest import IS_SMOKE
from tests.chaos.findings import Finding, now
from tests.chaos.programs import Program
from tests.chaos.resting import of_the_kernel
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.installation import ROOT
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(2 * 3_600)]

COUNT: Final = int(os.environ.get("CHAOS_BACKLOG") or (20_000 if IS_SMOKE else 100_000))
# With 64 keys some 64 a second: far below what any machine publishes.
SLOW_S: Final = 1.0
SLOW_FOR_S: Final = 5.0 if IS_SMOKE else 30.0
# The inbox in memory is large on purpose (100 000 ids); here it must not hide what else grows.
INBOX_IDS: Final = 5_000
# Of a million messages there are a thousand MiB; nobody may hold more than a few windows of them.
MEMORY_MIB: Final = 24.0
# Waiting must cost nothing: what a slow consumer spends is for what it handles, and a little for being there.
CPU_S_EACH: Final = 0.005
CPU_SHARE_IDLE: Final = 0.05
START_S: Final = 120.0
LOOK_S: Final = 3.0
# A busy machine moves some hundreds a second.
LONGEST_S: Final = 120.0 + COUNT / 200


@dataclass(slots=True)
class Field:
    """Where it happens: one namespace on one broker.

    Attributes:
        node: The broker.
        folder: Of logs and reports.
        environment: Of the programs.
        namespace: Of the queues.
        memory: What each program held, MiB, second by second.
        programs: All that were started.
    """

    node: PrivateNode
    folder: Path
    environment: Mapping[str, str]
    namespace: str
    memory: dict[str, list[float]] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)

    def start(self, title: str, *arguments: str) -> Program:
        program = Program(
            ["tests.chaos.backlog", arguments[0], str(self.folder / f"{title}.json"), *arguments[1:]],
            environment=self.environment,
            log_file=self.folder / f"{title}.log",
        )
        self.programs.append(program)
        return program

    async def consumer(self, title: str, *, slow_s: float) -> Program:
        """Start a consumer and wait until the broker feeds it."""
        consumer = self.start(title, "consume", "--slow-s", str(slow_s))

        async def is_fed() -> bool:
            assert consumer.is_running, consumer.last_words()
            return max([consumers for _, _, consumers in await self.queues()], default=0) > 0

        await eventually(is_fed, START_S, what=f"{title} was fed")
        return consumer

    async def publisher(self) -> Program:
        """Start the publisher and wait until it has published something."""
        publisher = self.start("publisher", "publish", "--count", str(COUNT))

        def has_begun() -> bool:
            assert publisher.is_running, publisher.last_words()
            return BEGUN in publisher.log_file.read_text()

        await eventually(has_begun, START_S, what="the publisher began")
        return publisher

    async def watched(self, title: str, program: Program) -> None:
        """Note once a second what a program holds, for as long as it runs."""
        notes = self.memory.setdefault(title, [])
        while program.is_running:
            try:
                notes.append(of_the_kernel(program.pid)["RSS MiB"])
            except OSError:
                # It ended between the two lines.
                return
            await asyncio.sleep(1.0)

    async def stopped(self, title: str, program: Program) -> dict[str, float]:
        """End a program in order and return its report."""
        program.signal(signal.SIGTERM)
        return await self.ended(title, program)

    async def ended(self, title: str, program: Program) -> dict[str, float]:
        """Wait for a program's end and return its report."""
        assert await program.ended(LONGEST_S) == 0, program.last_words()
        report: dict[str, float] = json.loads((self.folder / f"{title}.json").read_text())
        return report

    def numbers(self, title: str) -> Sequence[int]:
        """Return what a consumer handled, in its order."""
        found = array("I")
        found.frombytes((self.folder / f"{title}.numbers").read_bytes())
        return found

    async def queues(self) -> list[tuple[str, int, int]]:
        """Return name, messages and consumers of each queue."""
        words = ("list_queues", "name", "messages", "consumers", "--formatter", "json")
        listed = json.loads(await asyncio.to_thread(self.node.ctl, *words, timeout_s=CTL_TIMEOUT_S))
        rows = [(row["name"], row["messages"], row["consumers"]) for row in listed]
        return [row for row in rows if row[0].startswith(f"{self.namespace}.sluggard.")]

    async def left(self) -> int:
        """Return how many messages nobody holds, by the count of each queue itself: lists lag behind by seconds."""
        connection = await aiormq.connect(self.node.url)
        try:
            channel = await connection.channel()
            declared = [await channel.queue_declare(name, passive=True) for name, _, _ in await self.queues()]
        finally:
            await connection.close()
        return sum(queue.message_count or 0 for queue in declared)

    async def waiting(self) -> int:
        """Return how many messages wait, or are held, or did so some seconds ago."""
        return sum(messages for _, messages, _ in await self.queues())


def open_field(node: PrivateNode, folder: Path) -> Field:
    """Make keys and settings."""
    folder.mkdir(parents=True)
    namespace = f"backlog-{uuid4().hex[:8]}"
    contracts = {
        "sluggard": Contract(handles=sluggard(Handled(), slow_s=0).subscriptions),
        "flood": Contract(handles=Subscriptions()),
    }
    init_development(folder / "keys", contracts, ambient=real_ambient(), operator="tester")
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "MESSAGING_BROKER_URL": node.url,
        "MESSAGING_KEYS": str(folder / "keys"),
        "MESSAGING_NAMESPACE": namespace,
        "MESSAGING_CONNECT_TIMEOUT_S": "60",
        "MESSAGING_INBOX_IDS": str(INBOX_IDS),
    }
    return Field(node=node, folder=folder, environment=environment, namespace=namespace)


def disordered(numbers: Sequence[int]) -> int:
    """Return how many came after a later one of their key."""
    last, found = [-1] * KEYS, 0
    for number in numbers:
        found += number < last[number % KEYS]
        last[number % KEYS] = number
    return found


def risen(notes: Sequence[float]) -> float:
    """Return by how much a program's memory rose at most since it had warmed up, in the first tenth of its time."""
    warm = max(notes[: max(3, len(notes) // 10)])
    return max(notes) - warm


async def test_a_backlog_before_a_slow_consumer(
    chaos_node: PrivateNode, run_folder: Path, seed: int, findings: list[Finding]
) -> None:
    place = open_field(chaos_node, run_folder)
    try:
        async with asyncio.TaskGroup() as watching:
            slow = await place.consumer("slow", slow_s=SLOW_S)
            began_s = time.monotonic()
            publisher = await place.publisher()
            watching.create_task(place.watched("slow", slow))
            watching.create_task(place.watched("publisher", publisher))
            sent = await place.ended("publisher", publisher)
            # Where in the backlog it is stopped is left to chance.
            await asyncio.sleep(SLOW_FOR_S * random.Random(seed).uniform(0.5, 1.5))  # noqa: S311 - nothing is secret
            of_slow = await place.stopped("slow", slow)
            lasted_s = time.monotonic() - began_s
            left = await place.left()

            fast = await place.consumer("fast", slow_s=0.0)
            watching.create_task(place.watched("fast", fast))
            draining_s = time.monotonic()

            async def is_empty() -> bool:
                # The answer costs seconds of a processor.
                await asyncio.sleep(LOOK_S)
                return await place.waiting() == 0

            await eventually(is_empty, LONGEST_S, what="all came out")
            drain_s = time.monotonic() - draining_s
            of_fast = await place.stopped("fast", fast)
    finally:
        for program in place.programs:
            await asyncio.to_thread(program.kill)

    numbers = [*place.numbers("slow"), *place.numbers("fast")]
    rises = {title: risen(notes) for title, notes in place.memory.items()}
    finding = Finding(
        fault=f"a backlog of {COUNT} before a slow consumer",
        seed=seed,
        messages=COUNT,
        confirmed=round(sent["confirmed"]),
        duplicates=0,
        twice=len(numbers) - len(set(numbers)),
        lost=COUNT - len(set(numbers)),
        dead=0,
        recovery_s=0.0,
        drain_s=drain_s,
        held=sorted(numbers) == list(range(COUNT)) and max(rises.values()) < MEMORY_MIB,
        at=now(),
    )
    findings.append(finding)
    note(place, sent, of_slow, left)

    assert of_slow["handled"] + left == COUNT
    assert of_slow["handled"] < COUNT / 2, "it was not slow"
    assert of_slow["cpu_s"] < 2.0 + CPU_S_EACH * of_slow["handled"] + CPU_SHARE_IDLE * lasted_s
    assert of_slow["handled"] + of_fast["handled"] == COUNT
    assert sorted(numbers) == list(range(COUNT))
    assert disordered(numbers) == 0
    assert {title: rise for title, rise in rises.items() if rise >= MEMORY_MIB} == {}


def note(place: Field, sent: Mapping[str, float], of_slow: Mapping[str, float], left: int) -> None:
    """Write what the programs held."""
    lines = [
        f"{COUNT} sent in {sent['took_s']:.0f} s; {left} were left at the broker by the slow one, which handled "
        f"{of_slow['handled']:.0f} with {of_slow['cpu_s']:.1f} s of CPU",
        *(
            f"{title}: {notes[0]:.1f} MiB at first, {max(notes):.1f} at most, risen by {risen(notes):.1f} once warm"
            for title, notes in place.memory.items()
        ),
    ]
    text = "\n".join([*lines, ""])
    (place.folder / "memory.txt").write_text(text)
    print(text)  # noqa: T201 - the report is what the run is for


def test_a_number_that_comes_after_a_later_one_of_its_key_is_out_of_order() -> None:
    assert disordered([0, 1, KEYS, KEYS + 1, 2 * KEYS]) == 0
    assert disordered([0, 2 * KEYS, KEYS, 1, 3 * KEYS]) == 1
