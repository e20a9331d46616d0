"""A rotation drill: two senders and two receivers, two replicas each, with real key files, on a clock that can jump.

Everything is that of production: key files and bundle on disk, services that poll the bundle, rolling restarts when a
key file has changed. Only the waiting is cut short: while nothing is under way the clock jumps to a step's earliest
time.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from messaging import Command, Context, Service, Settings
from messaging.core.ambient import Ambient
from messaging.runtime.seams import Seams
from messaging.security.bundle_edit import FirstPolicy, with_part
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.private_files import write_file
from messaging.security.public_part import export_part, part_of
from messaging.security.rotation import Plan, Step, Timing, plan_rotation
from messaging.security.rotation_steps import facts_of, take_step, with_new_keys, without_keys
from messaging.security.trust import BUNDLE_FILE
from messaging.transports.memory import MemoryBroker
from tests.support.ambient import REAL
from tests.support.trusting import NOW, Trusting, first
from tests.support.waiting import eventually

__all__ = ["RECEIVERS", "SENDERS", "Drill"]

SENDERS: Final = ("alpha", "beta")
RECEIVERS: Final = ("gamma", "delta")
REPLICAS: Final = 2
WINDOW: Final = 64
LIFE_MS: Final = 365 * 24 * 3_600_000
POLL_S: Final = 0.05


class TakeGamma(Command, name="gamma.take"):
    number: int


class TakeDelta(Command, name="delta.take"):
    number: int


_COMMANDS: Final[dict[str, type[TakeGamma] | type[TakeDelta]]] = {"gamma": TakeGamma, "delta": TakeDelta}
_POLICY: Final = FirstPolicy(
    handles={name: frozenset({("command", f"{name}.take")}) for name in RECEIVERS}, subscribes={}
)


class JumpingClock:
    """The real clock, and what it has been moved by."""

    def __init__(self) -> None:
        self._offset_ms = NOW - time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._offset_ms

    def jump_to(self, at_ms: int) -> None:
        self._offset_ms += max(0, at_ms - self.now_ms())

    @property
    def ambient(self) -> Ambient:
        return replace(REAL, now_ms=self.now_ms)


@dataclass
class Drill:
    """Runs the drill.

    Attributes:
        folder: Home of keys and bundles.
        broker_url: `memory://`, or a real broker.
    """

    folder: Path
    broker_url: str
    clock: JumpingClock = field(default_factory=JumpingClock)
    sent: set[int] = field(default_factory=set)
    handled: Counter[int] = field(default_factory=Counter)
    namespace: str = field(default_factory=lambda: f"drill-{uuid4().hex[:8]}")
    steps: list[tuple[str, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        trust = self.folder / "trust"
        trust.mkdir()
        self.trusting: Trusting = first(trust, (*SENDERS, *RECEIVERS), policy=_POLICY)
        self.trusting.put(self.trusting.folder.content(), now_ms=self.clock.now_ms(), life_ms=LIFE_MS)
        self._broker = MemoryBroker()
        self._settings = {name: self._settings_of(name) for name in self.trusting.keyrings}
        self._replicas: dict[str, list[Service]] = {}
        self._stack = AsyncExitStack()
        self._told = asyncio.Event()
        for name, keyring in self.trusting.keyrings.items():
            write_keyring(keyring, self.folder / name / keyring_file(name))
        self.distribute()

    @property
    def identities(self) -> Sequence[str]:
        return (*SENDERS, *RECEIVERS)

    async def __aenter__(self) -> "Drill":
        for name in (*RECEIVERS, *SENDERS):
            self._replicas[name] = [self._service(name) for _ in range(REPLICAS)]
            for replica in self._replicas[name]:
                await self._start(replica)
                self._stack.push_async_callback(replica.stop)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def flow(self, count: int) -> None:
        """Send so many commands, spread over all pairs and replicas, a window at a time; wait until all have run."""
        numbers = iter(range(len(self.sent), len(self.sent) + count))
        pairs = cycle([(sender, receiver) for sender in SENDERS for receiver in RECEIVERS])
        lanes = cycle(range(REPLICAS))

        async def lane() -> None:
            for number in numbers:
                sender, receiver = next(pairs)
                await self._send(sender, next(lanes), _COMMANDS[receiver](number=number))
                self.sent.add(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(WINDOW):
                group.create_task(lane())
        try:
            await eventually(lambda: self.handled.keys() == self.sent, what=self._missing)
        except AssertionError as error:
            raise AssertionError(f"{error}; queues: {await self.refused()}; {self._states()}") from error

    async def step_while_flowing(self, identity: str, share: int) -> Step:
        """Take the next step for one identity in the middle of a flow that goes on until every service has the bundle.

        Args:
            identity: Whose keys.
            share: At least so many messages.
        """
        # Nothing is under way now, so the wait for the step's earliest time may be cut short.
        await self.quiet()
        self.clock.jump_to(self._plan(identity).earliest_ms)
        plan, begun = self._plan(identity), len(self.sent)
        async with asyncio.TaskGroup() as group:
            flowing = group.create_task(self._flow_until_told(share))
            await eventually(lambda: len(self.sent) - begun >= share // 4, what="the flow has begun")
            await self._take(identity, plan)
            await self._everybody_has_it()
            self._told.set()
            await flowing
        self._told.clear()
        self.steps.append((identity, plan.step))
        return plan.step

    def distribute(self) -> None:
        """Copy the bundle in force to every service."""
        raw = self.trusting.folder.current()
        assert raw is not None
        for name in self.trusting.keyrings:
            write_file(self.folder / name / BUNDLE_FILE, raw, replace=True, mode=0o644)

    async def quiet(self) -> None:
        """Wait until nothing is queued or handled, also no copy of what has run.

        On a busy machine a connection may be lost, and what was not acknowledged comes again. Were the clock to jump
        meanwhile, such a copy would expire and be buried.
        """
        # More than once: what has just left a queue is not at work yet.
        for _ in range(3):
            await eventually(self._is_quiet, what="nothing is under way")
            await asyncio.sleep(0.01)

    async def refused(self) -> dict[str, int]:
        """Return what lies in queues where nothing should be."""
        transport = self._replicas["gamma"][0]._parts.transport  # type: ignore[union-attr]
        names = self._settings["gamma"].names
        found: dict[str, int] = {}
        for name in RECEIVERS:
            for part in ("refused", "quarantine", "dead", "commands"):
                depth = await transport.depth(names.queue(name, part))
                if depth is not None and depth.messages:
                    found[f"{name} {part}"] = depth.messages
        return found

    async def _is_quiet(self) -> bool:
        replicas = [replica for replicas in self._replicas.values() for replica in replicas]
        waiting = [name for name in await self.refused() if name.endswith("commands")]
        return not waiting and not any(replica.running for replica in replicas)

    async def _everybody_has_it(self) -> None:
        """Wait until every replica has the bundle in force."""
        version = self.trusting.folder.content()["version"]
        replicas = [replica for replicas in self._replicas.values() for replica in replicas]
        await eventually(
            lambda: all(_bundle_version(replica) == version for replica in replicas), what="the bundle everywhere"
        )

    async def _flow_until_told(self, share: int) -> None:
        await self.flow(share)
        while not self._told.is_set():
            await self.flow(WINDOW)

    def _plan(self, identity: str) -> Plan:
        facts = facts_of(self.trusting.folder.history(), identity, owned={})
        return plan_rotation(facts, Timing(max_lifetime_ms=7 * 24 * 3_600_000), now_ms=self.clock.now_ms())

    async def _take(self, identity: str, plan: Plan) -> None:
        folder, keyring = self.trusting.folder, self.trusting.keyrings[identity]
        content = folder.content()
        if plan.step is Step.PUBLISH:
            keyring = with_new_keys(keyring)
            content = with_part(content, part_of(keyring))
            folder.keep_part(export_part(keyring), part_of(keyring))
        else:
            content = take_step(content, identity, plan, owned={})
        if plan.step is Step.DESTROY:
            keyring = without_keys(keyring, frozenset(plan.kids))
        if keyring is not self.trusting.keyrings[identity]:
            self.trusting.keyrings[identity] = keyring
            write_keyring(keyring, self.folder / identity / keyring_file(identity), replace=True)
            await self._restart(identity)
        self.trusting.put(content, now_ms=self.clock.now_ms(), life_ms=LIFE_MS)
        self.distribute()

    async def _restart(self, identity: str) -> None:
        for replica in self._replicas[identity]:
            await replica.stop()
            await self._start(replica)

    async def _start(self, replica: Service) -> None:
        settings = self._settings[replica.name]
        await replica.start(
            seams=Seams(
                settings=settings,
                ambient=self.clock.ambient,
                around=lambda handler: handler.call,
                on_published=lambda _message, _envelope: None,
            )
        )

    async def _send(self, sender: str, lane: int, command: Command) -> UUID:
        # While a replica restarts the other one serves.
        for replica in cycle([*self._replicas[sender][lane:], *self._replicas[sender][:lane]]):
            if replica._stack is not None and not replica._is_stopping:
                return await replica.send(command)
            await asyncio.sleep(0)
        raise AssertionError("never reached: a cycle has no end")

    def _service(self, name: str) -> Service:
        service = Service(name, self._settings[name])
        if name in RECEIVERS:

            async def take(command: Any, context: Context) -> None:
                self.handled[command.number] += 1

            service.on_command(_COMMANDS[name])(take)
        return service

    def _settings_of(self, name: str) -> Settings:
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        settings = Settings(broker_url=self.broker_url, keys=folder, namespace=self.namespace, trust_poll_s=POLL_S)
        settings.shared(MemoryBroker, lambda: self._broker)
        return settings

    def _states(self) -> str:
        replicas = [replica for name in RECEIVERS for replica in self._replicas[name]]
        return "; ".join(f"{replica.name}: {replica.health}" for replica in replicas)

    def _missing(self) -> str:
        missing = sorted(self.sent - self.handled.keys())
        return f"{len(missing)} of {len(self.sent)} messages have not run, such as {missing[:5]}"


def _bundle_version(replica: Service) -> int:
    parts = replica._parts
    return -1 if parts is None else parts.trust.current.version
