"""The rounds of the comparison: every contestant once, then again, each role a process of its own.

One contestant's turn: publish into an empty queue and count what is there, consume it all and count again, then serve
and request. The count is taken from the broker: whoever loses a message or acknowledges too little has failed. A
contestant that fails is left out from then on, with its reason.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import psutil
from aiormq.exceptions import AMQPError

from benchmarks.brokers import Broker, Queues, open_queues
from benchmarks.contestants import Contestant
from benchmarks.environments import FOLDER
from benchmarks.figures import REQUEST, Sample, samples_of
from benchmarks.programs import Program, ProgramError, cpu_s_of, rss_mib_of, running
from messaging.cli.broker_node import free_port

__all__ = ["Outcome", "Size", "Tournament"]

READY_TIMEOUT_S: Final = 40.0
ROLE_TIMEOUT_S: Final = 180.0
WINDOW: Final = 100
IN_FLIGHT: Final = 64

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured in each round.

    Attributes:
        rounds: How often everybody has a turn.
        messages: Published and consumed with a window.
        published_singly: Published one at a time.
        requests: Asked 64 at a time.
        requested_singly: Asked one at a time.
    """

    rounds: int
    messages: int
    published_singly: int
    requests: int
    requested_singly: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one contestant.

    Attributes:
        samples: By round.
        failures: Why it was left out, by part: `publish and consume`, `request`.
        settings: What its programs had set, by role.
        versions: Of what it used.
    """

    samples: dict[int, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def values(self, discipline: str, quantity: str) -> dict[int, float]:
        """Return a quantity by round."""
        return {
            number: sample.quantities[quantity]
            for number, samples in self.samples.items()
            for sample in samples
            if sample.discipline == discipline and quantity in sample.quantities
        }


class Tournament:
    """One run of all contestants.

    Args:
        contestants: In the order of their turns.
        broker: Where they meet.
        size: How much.
        keys: Folder with keys for our services.
        certificate: File with a certificate and its key for HTTPS.
        tell: Told what is going on.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        *,
        broker: Broker,
        size: Size,
        keys: Path,
        certificate: Path,
        tell: Callable[[str], None],
        environments: Path = FOLDER,
    ) -> None:
        self._contestants = contestants
        self._broker = broker
        self._size = size
        self._keys = keys
        self._certificate = certificate
        self._tell = tell
        self._environments = environments
        self.outcomes = {contestant.name: Outcome() for contestant in contestants}

    async def run(self) -> Mapping[str, Outcome]:
        """Play all rounds and return what became of everybody."""
        async with open_queues(self._broker.url) as classic, open_queues(self._broker.quorum_url) as quorum:
            for number in range(self._size.rounds):
                for contestant in self._contestants:
                    queues = classic if contestant.is_ours else quorum
                    await self._turn(contestant, number, queues)
        return self.outcomes

    async def _turn(self, contestant: Contestant, number: int, queues: Queues) -> None:
        outcome = self.outcomes[contestant.name]
        for part, takes_part, play in (
            ("publish and consume", contestant.sends, self._send),
            ("request", contestant.asks, self._ask),
        ):
            if not takes_part or part in outcome.failures:
                continue
            reason = contestant.obstacle
            try:
                if reason is None:
                    samples = await play(contestant, queues)
                    outcome.samples.setdefault(number, []).extend(samples)
                    shown = ", ".join(f"{sample.discipline} {sample.quantities['per_s']:.0f}/s" for sample in samples)
                    self._tell(f"round {number + 1}/{self._size.rounds}  {contestant.name}: {shown}")
            except (ProgramError, psutil.Error, OSError, AMQPError, TimeoutError) as error:
                reason = str(error) or repr(error)
            if reason is not None:
                outcome.failures[part] = reason
                self._tell(f"round {number + 1}/{self._size.rounds}  {contestant.name}: {part} FAILED: {reason}")

    async def _send(self, contestant: Contestant, queues: Queues) -> list[Sample]:
        queue = self._queue(contestant)
        how_many = ("--messages", self._size.messages, "--sequential", self._size.published_singly, "--window", WINDOW)
        if contestant.is_ours:
            await self._alone(contestant, "declare", ())
        await queues.purge(queue)
        sent = await self._alone(contestant, "publish", how_many)
        await self._check(queues, queue, sum(_counts(sent)) + max(1, self._size.messages // 10), "after publishing")
        handled = await self._alone(contestant, "consume", how_many)
        await self._check(queues, queue, 0, "after consuming")
        return [*samples_of("publish", sent), *samples_of("consume", handled)]

    async def _ask(self, contestant: Contestant, queues: Queues) -> list[Sample]:
        del queues
        port = free_port()
        url = f"https://127.0.0.1:{port}" if contestant.speaks_http else self._broker.url
        common = ("--url", url, "--queue", f"{self._queue(contestant)}.ask", "--certificate", str(self._certificate))
        how_many = ("--messages", self._size.requests, "--sequential", self._size.requested_singly)
        async with self._program(contestant, "serve", (*common, "--window", WINDOW)) as server:
            await server.said("READY", timeout_s=READY_TIMEOUT_S)
            async with self._program(contestant, "request", (*common, *how_many, "--window", IN_FLIGHT)) as client:
                await client.said("BEGIN", timeout_s=ROLE_TIMEOUT_S)
                began_s = cpu_s_of(server.pid)
                await client.said("END", timeout_s=ROLE_TIMEOUT_S)
                server_s = cpu_s_of(server.pid) - began_s
                report = await client.report(timeout_s=ROLE_TIMEOUT_S)
                await client.ended()
            server_rss_mib = rss_mib_of(server.pid)
        self._note(contestant, "request", report)
        extra = {"server_cpu_us": server_s * 1e6 / self._size.requests, "server_rss_mib": server_rss_mib}
        return [
            Sample(one.discipline, {**one.quantities, **extra}) if one.discipline == REQUEST else one
            for one in samples_of("request", report)
        ]

    async def _alone(self, contestant: Contestant, role: str, arguments: Sequence[object]) -> Json:
        """Run a program that ends by itself, and return its report."""
        url = self._broker.url if contestant.is_ours else self._broker.quorum_url
        common = ("--url", url, "--queue", self._queue(contestant))
        async with self._program(contestant, role, (*common, *arguments)) as program:
            if role == "declare":
                await program.ended(timeout_s=READY_TIMEOUT_S)
                return {}
            report = await program.report(timeout_s=ROLE_TIMEOUT_S)
            await program.ended()
        self._note(contestant, role, report)
        return report

    def _program(
        self, contestant: Contestant, role: str, arguments: Sequence[object]
    ) -> contextlib.AbstractAsyncContextManager[Program]:
        python = contestant.interpreter(self._environments)
        if not python.exists():
            raise ProgramError(f"not installed: there is no {python.relative_to(self._environments.parent)}")
        return running(
            [python, "-m", contestant.module, role, *(str(argument) for argument in arguments)],
            title=f"{contestant.name} {role}",
            environment={**contestant.variables, "MESSAGING_KEYS": str(self._keys)},
        )

    def _note(self, contestant: Contestant, role: str, report: Json) -> None:
        outcome = self.outcomes[contestant.name]
        outcome.settings[role] = str(report["settings"])
        outcome.versions |= cast("dict[str, str]", report["versions"])

    @staticmethod
    def _queue(contestant: Contestant) -> str:
        namespace = contestant.variables.get("MESSAGING_NAMESPACE")
        return f"bench.{contestant.name}" if namespace is None else f"{namespace}.orders.commands"

    @staticmethod
    async def _check(queues: Queues, queue: str, expected: int, when: str) -> None:
        waiting = await queues.count(queue)
        if waiting != expected:
            raise ProgramError(f"{waiting} instead of {expected} messages in {queue} {when}")


def _counts(report: Json) -> list[int]:
    return [
        int(stretch["messages"])
        for name in ("windowed", "sequential")
        if isinstance(stretch := report.get(name), Mapping)
    ]
