"""Order per key on real RabbitMQ: workers are killed while commands of 50 keys flow, and the books are compared."""

import asyncio
import os
import signal
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from messaging import Service, Settings
from messaging.ambient import real_ambient
from messaging.cli.broker_probe import free_port
from messaging.operators import open_operator
from messaging.security.development_files import Contract, init_development
from services.demo.programs import Program
from services.demo.settings import environment_with
from tests.support.bookkeeping import PARTITIONS, Enter, books
from tests.support.broker import Broker
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

KEYS = 50
COMMANDS = 2_000
LOT = COMMANDS // 3
OPERATOR = "ops:tester"


class Office:
    """Workers of the books on one database."""

    def __init__(self, broker_url: str, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(broker_url=broker_url, keys=folder / "keys", namespace=f"e2e-{uuid4().hex[:12]}")
        self.workers: list[Program] = []
        contracts = {"books": Contract(handles=books.subscriptions), "clerk": Contract(handles=books.subscriptions)}
        init_development(folder / "keys", contracts, ambient=real_ambient(), operator=OPERATOR.removeprefix("ops:"))

    async def start(self) -> Program:
        port = free_port()
        program = Program(
            f"books-{len(self.workers)}",
            ["messaging", "run", "tests.support.bookkeeping:books", "--log-format", "json", "--health-port", str(port)],
            environment=environment_with(
                {
                    "MESSAGING_BROKER_URL": self.settings.broker_url,
                    "MESSAGING_KEYS": str(self.folder / "keys"),
                    "MESSAGING_NAMESPACE": self.settings.namespace,
                    "BOOKS_DATABASE_URL": f"sqlite+aiosqlite:///{self.folder / 'books.db'}",
                }
            ),
            health_url=f"http://127.0.0.1:{port}/readyz",
            log_folder=self.folder,
        )
        self.workers.append(program)
        program.start()
        await program.ready()
        return program

    def entries(self) -> list[tuple[str, int, int]]:
        """Return account, number and worker of each entry, in the order of their commits."""
        with closing(sqlite3.connect(f"file:{self.folder / 'books.db'}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute("SELECT account, number, worker FROM entries ORDER BY id").fetchall()

    async def reaches(self, count: int) -> None:
        await eventually(
            lambda: len(self.entries()) >= count, 90.0, what=lambda: f"{len(self.entries())} of {count} entries"
        )

    def stop(self) -> None:
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()


@pytest.fixture
def office(broker: Broker, tmp_path: Path) -> Iterator[Office]:
    opened = Office(broker.url, tmp_path)
    yield opened
    opened.stop()


async def test_killing_workers_keeps_each_of_50_keys_in_order(office: Office) -> None:
    first = await office.start()
    second = await office.start()
    commands = [
        Enter(account=f"account-{serial % KEYS}", number=serial // KEYS, serial=serial) for serial in range(COMMANDS)
    ]

    async with Service("clerk", office.settings) as clerk, open_operator(office.settings, OPERATOR) as operator:
        # They share the partitions; one after the other is killed in the middle of its work. Each of the three finds
        # work, however fast the others are: a third of it comes only after each kill.
        begun = 0
        for victim in (first, second):
            begun += LOT
            sending = asyncio.create_task(clerk.send_many(commands[begun - LOT : begun]))
            await office.reaches(begun - LOT // 2)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            if victim is first:
                await office.start()
            await sending
        await clerk.send_many(commands[begun:])
        await eventually(
            lambda: len(office.entries()) >= COMMANDS, 90.0, what=lambda: f"{len(office.entries())} entries"
        )
        queues = [operator.names.partition("books", number) for number in range(PARTITIONS)]
        queues += [operator.names.queue("books", part) for part in ("dead", "refused", "quarantine")]
        left: dict[str, int] = {}

        async def nothing_is_left() -> bool:
            depths = {queue: await operator.transport.depth(queue) for queue in queues}
            left.update({queue: depth.messages for queue, depth in depths.items() if depth is not None})
            return left == dict.fromkeys(queues, 0)

        await eventually(nothing_is_left, what=lambda: f"empty queues: {left}")

    books_of: dict[str, list[int]] = defaultdict(list)
    for account, number, _ in office.entries():
        books_of[account].append(number)
    assert dict(books_of) == {f"account-{key}": list(range(COMMANDS // KEYS)) for key in range(KEYS)}
    # The ledger shows that the work did move: three processes wrote it.
    assert len({worker for _, _, worker in office.entries()}) == 3
