"""Effectively-once commands per second: the inbox row, a business row, an outgoing message, one commit.

    python -m benchmarks.sql [--messages 5000] [--rounds 3] [--bare] [--url amqp://…] [--postgres postgresql://…]

Without addresses it starts a private RabbitMQ node and a private PostgreSQL, both of which wait for the disk as they do
in earnest. A backlog of sealed commands waits in the queue; measured is the time until all of them are applied and
everything they send is confirmed by the broker and gone from the outbox, and this process's CPU time, user and system,
per command. Alone: a transaction for each delivery. Rows left to the end: the handler leaves its row to `Inserts`
instead of writing it by a statement of its own. Bare: what is left when nothing but transport and database drivers is
used (`sql_bare.py`). The variants are run in turn, round by round; figures are medians.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Column, Integer, MetaData, Table, Uuid, func, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from benchmarks.brokers import lent_or_private
from benchmarks.programs import run_benchmark
from benchmarks.sql_bare import run_bare
from messaging import Command, Context, Service, Settings
from messaging.stores.sql import Inserts, SqlStore
from messaging.stores.sql.migrations import migrate
from tests.support.postgres import run_postgres

PREFETCH = 64
GOALS = {
    ("sqlite", "alone"): 300,
    ("sqlite", "by 10"): 1500,
    ("postgresql", "alone"): 500,
    ("postgresql", "by 10"): 1500,
}

LEFT = "by 10, rows left to the end"
BARE = "by 10, bare"

metadata = MetaData()
ORDERS = Table("orders", metadata, Column("order_id", Uuid, primary_key=True), Column("total_cents", Integer))
INSERT = insert(ORDERS)


class PlaceOrder(Command, name="orders.place_order"):
    """A command as services send them: about 450 bytes sealed."""

    order_id: UUID
    total_cents: int
    note: str = "x" * 300


class TellUser(Command, name="users.tell_user"):
    """What each order sends."""

    order_id: UUID


@dataclass(frozen=True)
class Cost:
    """One measured run."""

    cpu_us: float
    per_s: float


@dataclass(frozen=True)
class Row:
    """One line of the table: medians."""

    database: str
    how: str
    per_s: float
    slowest_per_s: float
    cpu_us: float
    goal_per_s: int | None


def services(
    settings: Settings, store: SqlStore | None, group: int | None, *, leaves_rows: bool = False
) -> tuple[Service, Service]:
    """Return the service that is measured and the one that is told."""
    orders, users = Service("orders", settings, store=store), Service("users", settings)

    @users.on_command(TellUser)
    async def tell(command: TellUser, context: Context) -> None: ...

    if leaves_rows:

        @orders.on_command(PlaceOrder, group=group)
        async def leave(command: PlaceOrder, context: Context, inserts: Inserts) -> None:
            inserts.add(ORDERS, order_id=command.order_id, total_cents=command.total_cents)
            await context.send(TellUser(order_id=command.order_id))

        return orders, users

    @orders.on_command(PlaceOrder, group=group)
    async def place(command: PlaceOrder, context: Context, connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"order_id": command.order_id, "total_cents": command.total_cents})
        await context.send(TellUser(order_id=command.order_id))

    return orders, users


async def run(
    broker_url: str, engine: AsyncEngine, *, group: int | None, messages: int, leaves_rows: bool = False
) -> Cost:
    """Fill the queue, then measure how it is emptied."""
    settings = Settings.development(
        broker_url=broker_url, prefetch=PREFETCH, namespace=f"bench{uuid4().hex[:8]}", inbox_ids=messages
    )
    store = SqlStore(engine)
    orders, users = services(settings, store, group, leaves_rows=leaves_rows)
    async with orders, users, Service("shop", settings) as shop:
        # Users stops first and its queue stays; then orders, so that the backlog waits.
        await users.stop()
        await orders.stop()
        await shop.send_many([PlaceOrder(order_id=uuid4(), total_cents=each) for each in range(messages)])
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    async with orders:
        while not await is_done(orders, engine, store, messages):  # noqa: ASYNC110 - the end of a whole pipeline
            await asyncio.sleep(0.02)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    async with engine.begin() as connection:
        await connection.execute(ORDERS.delete())
    return Cost(cpu_us=cpu_s / messages * 1e6, per_s=messages / wall_s)


async def is_done(orders: Service, engine: AsyncEngine, store: SqlStore, messages: int) -> bool:
    """Tell whether everything is applied and gone from the outbox."""
    handled = dict(orders.health.details["counts"]).get("handled", 0)  # type: ignore[call-overload]
    if handled < messages or not orders.is_idle:
        return False
    async with engine.connect() as connection:
        applied = await connection.scalar(select(func.count()).select_from(ORDERS))
    return applied == messages and await store.outbox("orders").depth() == (0, 0)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncEngine]:
    """Open a database with all tables."""
    name = make_url(url).get_backend_name()
    engine = create_async_engine(url) if name == "sqlite" else create_async_engine(url, pool_size=16, max_overflow=0)
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    yield engine
    await engine.dispose()


async def measure(
    broker_url: str, databases: dict[str, str], *, messages: int, rounds: int, has_bare: bool = False
) -> list[Row]:
    """Run every variant in turn."""
    ways = [("alone", None), ("by 10", 10), (LEFT, 10), *([(BARE, 10)] if has_bare else [])]
    variants = [(name, how, group) for name in databases for how, group in ways]
    found: dict[tuple[str, str], list[Cost]] = {}
    async with contextlib.AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(opened(url)) for name, url in databases.items()}
        # The first round is not counted: broker, database and this process warm up.
        for turn in range(rounds + 1):
            for name, how, group in variants:
                count = messages if turn else messages // 4
                if how == BARE:
                    cost = Cost(
                        *await run_bare(broker_url, databases[name], group=10, prefetch=PREFETCH, messages=count)
                    )
                else:
                    cost = await run(broker_url, engines[name], group=group, messages=count, leaves_rows=how == LEFT)
                if turn:
                    found.setdefault((name, how), []).append(cost)
    return [
        Row(
            database=name,
            how=how,
            per_s=round(statistics.median(cost.per_s for cost in costs)),
            slowest_per_s=round(min(cost.per_s for cost in costs)),
            cpu_us=round(statistics.median(cost.cpu_us for cost in costs)),
            goal_per_s=GOALS.get((name, how)),
        )
        for (name, how), costs in found.items()
    ]


def table(rows: list[Row], *, messages: int, rounds: int) -> str:
    """Return it as Markdown."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}"
    lines = [
        "# Effectively-once commands, inbox and outbox",
        "",
        f"{machine}. A backlog of {messages} commands, prefetch {PREFETCH}, medians of {rounds} interleaved rounds.",
        "",
        "| database | deliveries per transaction | commands/s | slowest round | CPU µs per command | goal |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.database} | {row.how} | {row.per_s:.0f} | {row.slowest_per_s:.0f} | {row.cpu_us:.0f} "
        f"| {row.goal_per_s or ''} |"
        for row in rows
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def database_urls(postgres: str | None, wanted: str | None) -> Iterator[dict[str, str]]:
    """Lend a SQLite file and a PostgreSQL, or one of them."""
    with contextlib.ExitStack() as stack:
        urls = {}
        if wanted != "postgresql":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="messaging-benchmark-"))
            urls["sqlite"] = f"sqlite+aiosqlite:///{folder}/orders.db"
        if wanted != "sqlite":
            urls["postgresql"] = postgres or stack.enter_context(run_postgres(is_durable=True))
        yield urls


def main() -> None:
    """Measure, and write the table as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000, help="per round and figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="also the same work without anything around it")
    parser.add_argument("--url", help="of a RabbitMQ that may be used; a private node otherwise")
    parser.add_argument("--postgres", help="of a PostgreSQL database that may be used; a private server otherwise")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    with lent_or_private(options.url) as (url, _), database_urls(options.postgres, options.only) as urls:
        measuring = measure(url, urls, messages=options.messages, rounds=options.rounds, has_bare=options.bare)
        rows = run_benchmark(measuring)
    text = table(rows, messages=options.messages, rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sql.md").write_text(text + "\n")
    (options.out / "sql.json").write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    print(text)  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
