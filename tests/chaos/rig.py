"""The rig: a private broker behind a TCP proxy, processes that are killed, a load, and the oracle at the end.

Each run has a namespace, keys, a database and a seed of its own. It has four parts: the load flows and the test does
its worst; faults end and dead workers are replaced; `recovered`, when every live worker is fed and new work is done
within a minute (I4); `judged`, when the load ends, the backlog drains within a minute (I4), and the oracle speaks.
"""

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError

from messaging import MessagingError
from messaging.cli.broker_node import PrivateNode
from messaging.cli.broker_probe import free_port
from messaging.operators import Operator
from tests.chaos.census import Census, count, grown
from tests.chaos.findings import Finding, now
from tests.chaos.history import Outcome, What, read_history
from tests.chaos.ledger import Did, Ledger
from tests.chaos.load import CALL_TIMEOUT_S
from tests.chaos.oracle import Judgement, Letter, judge
from tests.chaos.programs import Program, Worker
from tests.chaos.worker import PARTITIONS, POOL_SIZE
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.proxy import TcpProxy

__all__ = ["DEFAULT_MIX", "Rig"]

# What the design promises; the waits themselves are as long again, so that a miss is a figure and no hang.
RECOVERY_S: Final = 60.0
DRAIN_S: Final = 60.0
# A call may be late by what a busy machine takes to wake a process.
LATE_SLACK_S: Final = 15.0
DEFAULT_MIX: Final[Mapping[What, int]] = {What.APPLY: 20, What.ASK: 3, What.SPOIL: 1}
_LOOK_S: Final = 0.25
_SERVICES: Final = ("chaos", "witness")
_END_TIMEOUT_S: Final = 90.0
# What is being closed at the end of a load is gone well before.
_CENSUS_TIMEOUT_S: Final = 45.0
_CENSUS_LOOK_S: Final = 2.0

Condition = Callable[[], Awaitable[bool]]
Description = Callable[[], Awaitable[str]]


class Rig:
    """One run; made by `open_rig` (`opening.py`).

    Args:
        node: The broker.
        proxy: The way that workers take to it.
        operator: A direct way to it, for looking.
        ledger: The database of the workers.
        folder: Home of everything that is written.
        environment: Of all processes.
        seed: Of chance.
    """

    def __init__(
        self,
        node: PrivateNode,
        proxy: TcpProxy,
        operator: Operator,
        ledger: Ledger,
        *,
        folder: Path,
        environment: Mapping[str, str],
        seed: int,
    ) -> None:
        self.node = node
        self.proxy = proxy
        self.operator = operator
        self.ledger = ledger
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - repeatable, nothing is secret
        self.history_file = folder / "history.jsonl"
        self.workers: list[Worker] = []
        self.gone: list[Worker] = []
        self.recovery_s = 0.0
        self.is_proxied = True
        self._environment = dict(environment)
        self.loads: list[Program] = []
        self._idle: Census | None = None

    # ---- processes

    async def start(self, service: str = "chaos", count: int = 1, **variables: str) -> list[Worker]:
        """Start workers of a service and wait until they are fed; `variables` are further settings."""
        started = [self._worker(service, variables) for _ in range(count)]
        await asyncio.gather(*(worker.ready() for worker in started))
        return started

    async def kill(self, worker: Worker) -> None:
        """End a worker at once."""
        await asyncio.to_thread(worker.kill)
        self._note_gone(worker)

    async def died(self, worker: Worker, *, within_s: float = _END_TIMEOUT_S) -> int:
        """Wait for a worker's end; returns its exit code, negative for a signal."""
        code = await worker.ended(within_s)
        self._note_gone(worker)
        return code

    async def replace_dead(self) -> int:
        """Start a worker for each that has died, as a supervisor does; returns how many."""
        dead = [worker for worker in self.workers if not worker.is_running]
        for worker in dead:
            await self.died(worker)
        await asyncio.gather(*(self.start(worker.service) for worker in dead))
        return len(dead)

    def of(self, service: str) -> list[Worker]:
        """Return the running workers of a service."""
        return [worker for worker in self.workers if worker.service == service and worker.is_running]

    @property
    def _services(self) -> tuple[str, ...]:
        """Those whose queues and letters count; `books` if it ever ran."""
        has_books = any(worker.service == "books" for worker in (*self.workers, *self.gone))
        return (*_SERVICES, "books") if has_books else _SERVICES

    @property
    def _partitions(self) -> list[str]:
        return [self.operator.names.partition("books", number) for number in range(PARTITIONS)]

    @property
    def _proxied(self) -> str:
        through = f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/"
        return through if self.is_proxied else self._environment["MESSAGING_BROKER_URL"]

    def _worker(self, service: str, variables: Mapping[str, str]) -> Worker:
        number = len(self.workers) + len(self.gone)
        worker = Worker(
            service,
            environment={**self._environment, "MESSAGING_BROKER_URL": self._proxied, **variables},
            port=free_port(),
            log_file=self.folder / f"{service}-{number}.log",
        )
        self.workers.append(worker)
        return worker

    def _note_gone(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
            self.gone.append(worker)

    # ---- load

    async def load(
        self,
        *,
        rate: float = 40.0,
        limit: int = 0,
        accounts: int = 0,
        flaky: float = 0.04,
        stall_s: float = 0.0,
        mix: Mapping[What, int] = DEFAULT_MIX,
        through_proxy: bool = False,
        **variables: str,
    ) -> None:
        """Start a load and wait until the first work is done.

        Args:
            rate: Calls per second.
            limit: End after so many calls; 0: flow until the end.
            accounts: How many accounts transfers are between.
            flaky: Share of commands whose first runs fail.
            stall_s: What a handler takes that takes long.
            mix: Weight of each operation.
            through_proxy: Whether it shares the workers' way to the broker.
            **variables: Further settings of it.
        """
        seed = self.chance.getrandbits(32)
        arguments = [
            *("tests.chaos.load", str(self.history_file), "--seed", str(seed), "--rate", str(rate)),
            *("--limit", str(limit), "--accounts", str(accounts), "--mix", json.dumps(mix)),
            *("--flaky", str(flaky), "--stall-s", str(stall_s)),
        ]
        self._idle = await count(self.node, self.workers) if self._idle is None else self._idle
        variables |= {"MESSAGING_BROKER_URL": self._proxied} if through_proxy else {}
        since_s = time.time()
        self.loads.append(
            Program(arguments, environment=self._environment | variables, log_file=self.folder / "load.log")
        )
        flows = self._begun_since(since_s) if limit else self._works_since(since_s)
        await self._until(flows, _END_TIMEOUT_S, what="first work was done")

    async def load_ended(self, timeout_s: float) -> None:
        """Wait for loads with a limit."""
        for load in self.loads:
            assert await load.ended(timeout_s) == 0, load.last_words()

    async def kill_loads(self) -> None:
        """End the loads at once, in the middle of their calls."""
        for load in self.loads:
            await asyncio.to_thread(load.kill)
        self.loads.clear()

    async def end_load(self) -> None:
        """End the loads in order."""
        for load in self.loads:
            load.signal(signal.SIGTERM)
        await self.load_ended(_END_TIMEOUT_S)

    # ---- after the fault

    async def recovered(self) -> float:
        """Wait from now, the moment of healing, until every live worker is fed and new work is done (I4); seconds."""
        began_s, since_s = time.monotonic(), time.time()
        await self._until(self._is_fed, 2 * RECOVERY_S, what="every live worker was fed")
        if any(load.is_running for load in self.loads):
            await self._until(self._works_since(since_s), 2 * RECOVERY_S, what="new work was done")
        self.recovery_s = time.monotonic() - began_s
        assert self.recovery_s <= RECOVERY_S, f"I4: recovery took {self.recovery_s:.1f} s (seed {self.seed})"
        return self.recovery_s

    async def judged(self, fault: str, *, expect: tuple[str, ...] = ()) -> tuple[Finding, Judgement]:
        """End the load, let the backlog drain (I4), ask the oracle, and demand that every invariant holds.

        Args:
            fault: Name of the run in the report.
            expect: Problems that this run must show; of everything else there must be none.
        """
        drain_s = await self.drained()
        judgement = await self.judgement()
        leaked = await self.leaked()
        found = Finding(
            fault=fault,
            seed=self.seed,
            messages=judgement.messages,
            confirmed=judgement.confirmed,
            duplicates=self.duplicates(),
            twice=len(judgement.twice),
            lost=len(judgement.lost | judgement.unheard),
            dead=judgement.dead,
            recovery_s=self.recovery_s,
            drain_s=drain_s,
            held=set(judgement.problems) == set(expect) and drain_s <= DRAIN_S and not leaked,
            leaked=leaked,
            at=now(),
        )
        return found, judgement

    async def drained(self) -> float:
        """End the load and wait until nothing is under way (I4); seconds."""
        await self.end_load()
        began_s = time.monotonic()
        await self._until(self._is_drained, 2 * DRAIN_S, what=self._backlog)
        return time.monotonic() - began_s

    async def rested(self, timeout_s: float) -> None:
        """Wait, while the load pauses, until nothing is under way."""
        # Twice: what has just left one queue is not in the next yet.
        for _ in range(2):
            await self._until(self._is_at_rest, timeout_s, what=self._backlog)

    async def leaked(self) -> tuple[str, ...]:
        """Return what live workers go on holding more of than before the load (I9); nothing once all is back."""
        if self._idle is None:
            return ()
        pool = POOL_SIZE if self._environment["CHAOS_DATABASE_URL"].startswith("postgresql") else 0
        deadline_s = time.monotonic() + _CENSUS_TIMEOUT_S
        while True:
            alive = [worker for worker in self.workers if worker.is_running]
            more = grown(self._idle, await count(self.node, alive), pool=pool)
            if not more or time.monotonic() > deadline_s:
                return more
            await asyncio.sleep(_CENSUS_LOOK_S)

    async def judgement(self) -> Judgement:
        """Ask the oracle about what there is now."""
        return judge(
            read_history(self.history_file),
            await self.ledger.counts(),
            await self.letters(),
            deadline_s=CALL_TIMEOUT_S + LATE_SLACK_S,
            entries=await self.ledger.entries(),
        )

    async def letters(self) -> list[Letter]:
        """Return the dead letters of all services."""
        return [
            Letter(id=it.id, leaf=it.leaf, message_id=it.message_id, service=service, error=it.fault.error)
            for service in self._services
            for it in await self.operator.dead_letters.list(service)
        ]

    def duplicates(self) -> int:
        """Return how many deliveries the inboxes dropped because their message had run."""
        return sum(
            event["event"] == "delivery.skipped" and str(event.get("code", "")).startswith("duplicate")
            for worker in (*self.workers, *self.gone)
            for event in worker.events()
        )

    def told(self, service: str, event: str) -> int:
        """Return how often processes of a service, those that are gone too, have logged an event."""
        programs = [worker for worker in (*self.workers, *self.gone) if worker.service == service]
        return sum(line["event"] == event for worker in programs for line in worker.events())

    async def unsettled(self, *services: str) -> int:
        """Return how many deliveries consumers of some services hold, of all services without names."""
        words = ("list_queues", "name", "messages_unacknowledged", "--formatter", "json")
        listed = await asyncio.to_thread(self.node.ctl, *words, timeout_s=CTL_TIMEOUT_S)
        prefixes = tuple(f"{self.operator.names.namespace}.{service}." for service in services or self._services)
        return sum(row["messages_unacknowledged"] for row in json.loads(listed) if row["name"].startswith(prefixes))

    async def settled(self, *services: str) -> None:
        """Wait until consumers of some services hold nothing (I10). The broker tells this figure a few seconds late."""

        async def are_settled() -> bool:
            return await self.unsettled(*services) == 0

        await self._until(are_settled, RECOVERY_S, what="nothing is left unacknowledged")

    async def _is_fed(self) -> bool:
        for service, part in (("chaos", "commands"), ("chaos", "requests"), ("witness", "events")):
            depth = await self.operator.transport.depth(self.operator.names.queue(service, part))
            if depth is None or depth.consumers != len(self.of(service)):
                return False
        if self.of("books"):
            depths = [await self.operator.transport.depth(queue) for queue in self._partitions]
            if not all(depth is not None and depth.consumers for depth in depths):
                return False
        return all(await asyncio.gather(*(worker.is_ready() for worker in self.workers if worker.is_running)))

    def _works_since(self, since_s: float) -> Condition:
        async def works() -> bool:
            history = read_history(self.history_file)
            wanted = {
                op_id
                for op_id, found in history.items()
                if found.began_s >= since_s and found.outcome is Outcome.CONFIRMED and found.what is not What.SPOIL
            }
            counts = await self.ledger.counts()
            return any(op_id in counts[did] for did in Did if did not in {Did.HEARD, Did.OVERHEARD} for op_id in wanted)

        return works

    def _begun_since(self, since_s: float) -> Condition:
        async def begun() -> bool:
            return any(found.began_s >= since_s for found in read_history(self.history_file).values())

        return begun

    async def _is_drained(self) -> bool:
        if await self._waiting():
            return False
        judgement = await self.judgement()
        if judgement.lost or judgement.unheard:
            # Nothing waits, but somebody may hold it: only when nobody does it is lost.
            return await self.unsettled() == 0 and not await self._waiting()
        return True

    async def _is_at_rest(self) -> bool:
        return not await self._waiting() and not await self.unsettled()

    async def _waiting(self) -> dict[str, int]:
        names, depths = self.operator.names, dict[str, int]()
        queues = [names.queue("chaos", "commands"), names.queue("witness", "events"), names.queue("chaos", "requests")]
        queues += [*self._partitions] if "books" in self._services else []
        queues += [names.rung(service, delay_ms) for service in self._services for delay_ms in (1_000, 5_000, 30_000)]
        for queue in queues:
            depth = await self.operator.transport.depth(queue)
            depths[queue] = 0 if depth is None else depth.messages
        for service in self._services:
            depths[f"outbox of {service}"] = await self.ledger.waiting(service)
        return {name: count for name, count in depths.items() if count}

    async def _backlog(self) -> str:
        return f"the backlog drained; waiting: {await self._waiting()}"

    async def _until(self, holds: Condition, timeout_s: float, *, what: str | Description) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not await self._holds(holds):
            if time.monotonic() > deadline_s:
                missed = what if isinstance(what, str) else await what()
                raise AssertionError(f"I4: not within {timeout_s:.0f} s: {missed} (seed {self.seed})")
            await asyncio.sleep(_LOOK_S)

    @staticmethod
    async def _holds(holds: Condition) -> bool:
        try:
            return await holds()
        except (MessagingError, DBAPIError, OSError):
            # A broker or a database that is down answers nothing.
            return False

    def stop(self) -> None:
        """End every process."""
        for program in (*self.workers, *self.loads):
            program.kill()
