"""The same work with nothing around it: what the two databases and the broker let one process of Python do in groups.

    python -m benchmarks.sql --bare

Our transport, the bare database drivers, JSON. No signature, no encryption, no model, no service, no deadline, no
retry; one statement for each table and group, business rows too. A group's transaction inserts inbox, business and
outbox rows; then it is committed, acknowledged and published, and a later one deletes what is confirmed. It delivers
the same while nothing goes wrong, and is the ceiling of `benchmarks.sql` on a machine.
"""

import asyncio
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from messaging.ambient import real_ambient
from messaging.core.sealed import Label, Route
from messaging.core.topology import Binding, Exchange, Queue, Topology
from messaging.security.seal import restored
from messaging.transports.amqp.transport import AmqpTransport
from messaging.transports.base import Delivery

__all__ = ["run_bare"]

TIMEOUT_S: Final = 30.0
# Groups at once: SQLite has one writer.
WRITERS: Final = {"sqlite": 1, "postgresql": 6}
TABLES: Final = (
    "CREATE TABLE bare_inbox (id VARCHAR(32) PRIMARY KEY, at BIGINT)",
    "CREATE TABLE bare_orders (id VARCHAR(32) PRIMARY KEY, total_cents INTEGER)",
    "CREATE TABLE bare_outbox (id VARCHAR(32) PRIMARY KEY, body {bytes})",
)
NAMES: Final = ("bare_inbox", "bare_orders", "bare_outbox")
QUORUM: Final = {"x-queue-type": "quorum"}

Orders = Sequence[tuple[str, int]]
T = TypeVar("T")


class Book(Protocol):
    """One database."""

    async def open(self) -> None:
        """Make the tables anew."""

    async def write(self, orders: Orders, told: Sequence[bytes], gone: Sequence[str]) -> None:
        """Commit a group, and delete what is confirmed of earlier ones."""

    async def aclose(self) -> int:
        """Return how many orders there are, and close it."""


class SqliteBook:
    """The driver of the standard library in a thread: one turn for a group."""

    def __init__(self, url: str) -> None:
        self._path = Path(str(make_url(url).database))
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See `Book`."""
        await self._run(self._open)

    async def write(self, orders: Orders, told: Sequence[bytes], gone: Sequence[str]) -> None:
        """See `Book`."""
        await self._run(self._write, orders, told, gone)

    async def aclose(self) -> int:
        """See `Book`."""
        count = await self._run(self._close)
        self._thread.shutdown()
        return count

    async def _run(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def _open(self) -> None:
        self._connection = connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for name, table in zip(NAMES, TABLES, strict=True):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute(table.format(bytes="BLOB"))

    def _write(self, orders: Orders, told: Sequence[bytes], gone: Sequence[str]) -> None:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        now = int(time.time() * 1000)
        connection.executemany("INSERT INTO bare_inbox VALUES (?, ?)", [(number, now) for number, _ in orders])
        connection.executemany("INSERT INTO bare_orders VALUES (?, ?)", orders)
        rows = [(number, body) for (number, _), body in zip(orders, told, strict=True)]
        connection.executemany("INSERT INTO bare_outbox VALUES (?, ?)", rows)
        connection.executemany("DELETE FROM bare_outbox WHERE id = ?", [(number,) for number in gone])
        connection.execute("COMMIT")

    def _close(self) -> int:
        assert self._connection is not None
        count: int = self._connection.execute("SELECT count(*) FROM bare_orders").fetchone()[0]
        self._connection.close()
        return count


class PostgresBook:
    """asyncpg, and a statement with arrays for each table."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """See `Book`."""
        writers = WRITERS["postgresql"]
        self._pool = await asyncpg.create_pool(self._url, min_size=writers, max_size=writers)
        for name, table in zip(NAMES, TABLES, strict=True):
            await self._pool.execute(f"DROP TABLE IF EXISTS {name}")
            await self._pool.execute(table.format(bytes="BYTEA"))

    async def write(self, orders: Orders, told: Sequence[bytes], gone: Sequence[str]) -> None:
        """See `Book`."""
        assert self._pool is not None
        numbers = [number for number, _ in orders]
        async with self._pool.acquire() as connection, connection.transaction():
            now = int(time.time() * 1000)
            await connection.execute("INSERT INTO bare_inbox SELECT unnest($1::text[]), $2", numbers, now)
            cents = [each for _, each in orders]
            await connection.execute(
                "INSERT INTO bare_orders SELECT * FROM unnest($1::text[], $2::int[])", numbers, cents
            )
            await connection.execute(
                "INSERT INTO bare_outbox SELECT * FROM unnest($1::text[], $2::bytea[])", numbers, told
            )
            if gone:
                await connection.execute("DELETE FROM bare_outbox WHERE id = ANY($1::text[])", gone)

    async def aclose(self) -> int:
        """See `Book`."""
        assert self._pool is not None
        count: int = await self._pool.fetchval("SELECT count(*) FROM bare_orders")
        await self._pool.close()
        return count


class _Worker:
    """Takes deliveries in, and handles them in groups."""

    def __init__(self, transport: AmqpTransport, book: Book, out: Route, *, group: int, messages: int) -> None:
        self.done = asyncio.Event()
        self._transport, self._book, self._out = transport, book, out
        self._group, self._left = group, messages
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._gone: list[str] = []

    def take(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()

    async def run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            size = min(self._group, len(self._waiting))
            await self._apply([self._waiting.popleft() for _ in range(size)])

    async def _apply(self, deliveries: Sequence[Delivery]) -> None:
        commands = [json.loads(delivery.body) for delivery in deliveries]
        orders = [(command["order_id"], command["total_cents"]) for command in commands]
        told = [json.dumps({"order_id": number}).encode() for number, _ in orders]
        gone, self._gone = self._gone, []
        await self._book.write(orders, told, gone)
        loop = asyncio.get_running_loop()
        confirms = []
        for (number, _), body in zip(orders, told, strict=True):
            confirms.append(confirm := loop.create_future())
            label = Label(message_id=number, type="users.tell_user/1")
            self._transport.submit(restored(body), self._out, label, timeout_s=TIMEOUT_S, outcome=confirm)
        for delivery in deliveries:
            delivery.ack()
        await asyncio.gather(*confirms)
        self._gone += [number for number, _ in orders]
        self._left -= len(deliveries)
        if not self._left:
            self.done.set()


async def run_bare(
    broker_url: str, database_url: str, *, group: int, prefetch: int, messages: int
) -> tuple[float, float]:
    """Fill a queue, then measure how it is emptied; returns CPU µs of this process per command, and commands/s."""
    kind = make_url(database_url).get_backend_name()
    book: Book = SqliteBook(database_url) if kind == "sqlite" else PostgresBook(database_url)
    transport = AmqpTransport([broker_url], ambient=real_ambient())
    exchange, queues = f"bare{uuid4().hex[:8]}", ("orders", "users")
    topology = Topology(
        exchanges=(Exchange(name=exchange, type="topic"),),
        queues=tuple(Queue(name=f"{exchange}.{name}", arguments=QUORUM) for name in queues),
        bindings=tuple(Binding(exchange=exchange, queue=f"{exchange}.{name}", routing_key=name) for name in queues),
    )
    inwards, outwards = (Route(exchange=exchange, routing_key=name) for name in queues)
    await transport.connect()
    await transport.declare(topology)
    await book.open()
    async with asyncio.TaskGroup() as filling:
        for number in range(messages):
            body = json.dumps({"order_id": uuid4().hex, "total_cents": number, "note": "x" * 300}).encode()
            label = Label(message_id=uuid4().hex, type="orders.place_order/1")
            filling.create_task(transport.publish(restored(body), inwards, label, timeout_s=TIMEOUT_S))
    worker = _Worker(transport, book, outwards, group=group, messages=messages)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    tasks = [asyncio.create_task(worker.run()) for _ in range(WRITERS[kind])]
    subscription = await transport.consume(f"{exchange}.orders", worker.take, prefetch=prefetch)
    async with asyncio.timeout(10 * TIMEOUT_S):
        await worker.done.wait()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    await subscription.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await transport.aclose()
    assert await book.aclose() == messages
    return cpu_s / messages * 1e6, messages / wall_s
