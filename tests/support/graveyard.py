"""A graveyard: services whose messages fail until they are mended, and replayers that are real programs.

The services run in this process over a durable inbox; each run of a handler is noted in its transaction, without a
unique key. A replayer is `messaging dead replay` as an operator types it, and may be told to die at a step.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiormq
import aiormq.abc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from messaging import Command, Context, Event, Reject, RetryPolicy, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.operators import Operator, open_operator
from messaging.security.development_files import Contract, init_development
from messaging.stores.sql import SqlStore
from tests.support.guarded import guarded
from tests.support.installation import Installation
from tests.support.waiting import eventually

__all__ = ["Graveyard", "Moved", "Place", "Replayed", "open_graveyard"]

OPERATOR: Final = "ops:dev"
SUBSCRIBERS: Final = ("shop", "billing", "mail")
_BATCH: Final = 500
_LOOKS: Final = 3
_BETWEEN_LOOKS_S: Final = 0.05


class Place(Command, name="shop.place"):
    number: int
    note: str = ""


class Moved(Event, name="users.moved"):
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How a replayer ended.

    Attributes:
        code: Its exit code; negative: the signal that killed it.
        out, err: What it said.
    """

    code: int
    out: str
    err: str

    @property
    def was_killed(self) -> bool:
        """Whether it died at its step."""
        return self.code == -signal.SIGKILL


@dataclass(slots=True)
class Graveyard:
    """Services with dead letters, and those who replay them.

    Attributes:
        installation: Keys and settings of the programs.
        operator: An operator in this process.
        users: Who sends.
        services: The services by name; a test may stop one.
        engine: The database.
        mended: Services whose handlers succeed.
        runs: Handler runs by service, whether they succeeded or not.
    """

    installation: Installation
    settings: Settings
    operator: Operator
    users: Service
    services: dict[str, Service]
    engine: AsyncEngine
    mended: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)

    async def bury(self, count: int, *, note: str = "") -> list[int]:
        """Have that many commands fail for good; returns their numbers."""
        before = await self.depth("shop", "dead")
        for first in range(0, count, _BATCH):
            numbers = range(first, min(count, first + _BATCH))
            await self.users.send_many([Place(number=number, note=note) for number in numbers])
        await self.until_dead("shop", before + count)
        return list(range(count))

    async def until_dead(self, service: str, count: int) -> None:
        """Wait until that many letters are dead."""
        found: dict[str, int] = {}

        async def is_reached() -> bool:
            for part in ("dead", "commands", "events"):
                found[part] = await self.depth(service, part)
            return found["dead"] == count

        # A busy machine buries some dozens a second through a database.
        await eventually(
            is_reached, 120.0 + count / 10, what=lambda: f"{count} dead letters of {service}; queues: {found}"
        )

    async def depth(self, service: str, part: str) -> int:
        """Return how many messages wait in a queue; 0 for a missing one."""
        depth = await self.operator.transport.depth(self.operator.names.queue(service, part))
        return 0 if depth is None else depth.messages

    async def effects(self, service: str = "shop") -> Counter[int]:
        """Return how often each message took effect."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(text("SELECT number FROM effects WHERE service = :s"), {"s": service})
            return Counter(row[0] for row in rows)

    async def replay(
        self, *arguments: str, failpoint: str | None = None, interrupt_after: int = 0, timeout_s: float = 600.0
    ) -> Replayed:
        """Replay as a program of its own, to its end.

        Args:
            *arguments: Behind `messaging dead replay`.
            failpoint: The step at which it dies.
            interrupt_after: Type Ctrl-C once so many messages took effect; 0 never.
            timeout_s: How long it may take.
        """
        changes = {} if failpoint is None else {"MESSAGING_FAILPOINT": failpoint}
        process = await asyncio.create_subprocess_exec(
            *guarded(sys.executable, "-m", "messaging", "dead", "replay", *arguments, "--yes", "--reason", "a test"),
            cwd=self.installation.folder,
            env={**self.installation.environment, **changes},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if interrupt_after:

            async def is_under_way() -> bool:
                return len(await self.effects()) >= interrupt_after

            await eventually(is_under_way, 60.0, what="the replay was under way")
            os.kill(process.pid, signal.SIGINT)
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Replayed(code=process.returncode, out=out.decode(), err=err.decode())

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        """Lend a channel of a client that knows nothing of us."""
        connection = await aiormq.connect(self.settings.broker_urls[0])
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def put_back(self, body: bytes) -> None:
        """Put bytes among the dead letters of the shop."""
        async with self.channel() as channel:
            exchange = self.operator.names.undeliverable_exchange("shop")
            await channel.basic_publish(body, exchange=exchange, routing_key="")

    async def ran(self, numbers: Iterable[int], service: str = "shop") -> None:
        """Wait until each of these messages, and nothing else, has taken effect exactly once, and nothing is to do.

        What was delivered is neither in the queue nor at work for a moment, so an idle service alone tells too little.
        """
        wanted, found = Counter(numbers), Counter[int]()

        async def is_all() -> bool:
            nonlocal found
            found = await self.effects(service)
            return found >= wanted

        await eventually(is_all, what=lambda: f"the effects of {service}, which lack {wanted - found}")
        await self.settled(service)
        assert await self.effects(service) == wanted

    async def until_depth(self, service: str, part: str, count: int) -> None:
        """Wait until so many messages wait in a queue: what comes back to it counts a moment later."""

        async def is_reached() -> bool:
            return await self.depth(service, part) == count

        await eventually(is_reached, what=f"{count} messages in {part} of {service}")

    async def settled(self, service: str = "shop", *, timeout_s: float = 60.0) -> None:
        """Wait until the service has nothing to do."""

        async def is_idle() -> bool:
            waiting = [await self.depth(service, part) for part in ("commands", "events")]
            return not any(waiting)

        # More than once: what has just left the queue is not at work yet.
        for _ in range(_LOOKS):
            await eventually(is_idle, timeout_s, what=f"{service} had done its work")
            await self.services[service].settled(timeout_s)
            await asyncio.sleep(_BETWEEN_LOOKS_S)


@asynccontextmanager
async def open_graveyard(folder: Path, broker_url: str) -> AsyncIterator[Graveyard]:
    """Run the services on a broker, with files in a folder."""
    contract = Contract(handles=Subscriptions(commands=frozenset({("shop.place", 1)}), events=_EVENTS))
    contracts = {"shop": contract, "users": Contract(handles=Subscriptions())}
    contracts |= {name: Contract(handles=Subscriptions(events=_EVENTS)) for name in SUBSCRIBERS[1:]}
    init_development(folder / "keys", contracts, ambient=real_ambient(), operator="dev")
    installation = Installation(folder=folder, broker_url=broker_url)
    settings = Settings(broker_url=broker_url, keys=installation.keys, namespace=installation.namespace)
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'effects.db'}")
    store = SqlStore(engine)
    await store.create_tables()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE effects (service TEXT NOT NULL, number INTEGER NOT NULL)"))
    services = {name: Service(name, settings, store=store, retry=_AT_ONCE) for name in SUBSCRIBERS}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        operator = await stack.enter_async_context(open_operator(settings, OPERATOR))
        yard = Graveyard(
            installation=installation,
            settings=settings,
            operator=operator,
            users=Service("users", settings),
            services=services,
            engine=engine,
        )
        for service in services.values():
            _handle(yard, service)
            await stack.enter_async_context(service)
        await stack.enter_async_context(yard.users)
        yield yard


_AT_ONCE: Final = RetryPolicy(immediate=0, delays_s=())
_EVENTS: Final = frozenset({("users.moved", 1)})


def _handle(yard: Graveyard, service: Service) -> None:
    async def act(number: int, session: AsyncSession) -> None:
        yard.runs[service.name] += 1
        await session.execute(
            text("INSERT INTO effects (service, number) VALUES (:s, :n)"), {"s": service.name, "n": number}
        )
        if service.name not in yard.mended:
            raise Reject("not mended yet")

    @service.on_event(Moved)
    async def moved(event: Moved, context: Context, session: AsyncSession) -> None:
        await act(event.number, session)

    if service.name == "shop":

        @service.on_command(Place)
        async def place(command: Place, context: Context, session: AsyncSession) -> None:
            await act(command.number, session)
