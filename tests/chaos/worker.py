"""The services under fire: `chaos` acts and publishes, `witness` and `bystander` note what they hear, `skeptic` fails,
`books` acts in the order of keys.

Run by `messaging run tests.chaos.worker:chaos`. Variables say how: `CHAOS_DATABASE_URL`; `CHAOS_INBOX`, `sql` or
`memory`, the latter with effects in a transaction of the handler's own, as an application without a durable store has
them; `CHAOS_COUNT_TASKS_S`, to log as often how many tasks there are; `CHAOS_GROUP`, how many share a transaction;
`CHAOS_REST_FOLDER`, where to say what the process holds when it is asked (`resting.py`); `CHAOS_LEAK`, what it never
lets go (`leaking.py`); `CHAOS_LADDER`, the delays of retries, seconds; `CHAOS_VERSION`, 2 for replicas that know one
command and one request more.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from messaging import Context, Reject, RetryPolicy, Service
from messaging.stores.sql import SqlStore
from tests.chaos.contract import Applied, Apply, Ask, AskExtra, Enter, Extra, Kill, Spoil, Stall, Transfer
from tests.chaos.leaking import Leaks
from tests.chaos.ledger import ACCOUNTS, Did, entered, noted
from tests.chaos.resting import answering

__all__ = ["PARTITIONS", "POOL_SIZE", "books", "bystander", "chaos", "skeptic", "witness"]

LADDER = os.environ.get("CHAOS_LADDER") or "1,5"
RETRY = RetryPolicy(immediate=1, delays_s=tuple(float(delay_s) for delay_s in LADDER.split(",")))
WORKER = str(os.getpid())
# Connections that a worker keeps to a PostgreSQL.
POOL_SIZE = 16
PARTITIONS = 4
GROUP = int(os.environ.get("CHAOS_GROUP") or 0) or None
log = structlog.get_logger()
leaks = Leaks.parse(os.environ.get("CHAOS_LEAK", ""))


@asynccontextmanager
async def open_store(_service: Service) -> AsyncIterator[tuple[object, ...]]:
    """Open the database; without a durable inbox handlers get the engine alone."""
    url = os.environ["CHAOS_DATABASE_URL"]
    sizes = {} if url.startswith("sqlite") else {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_pre_ping": True}
    engine = create_async_engine(url, **sizes)
    counting = asyncio.create_task(count_tasks(float(os.environ.get("CHAOS_COUNT_TASKS_S") or 0)))
    resting = asyncio.create_task(answering())
    try:
        yield (engine,) if os.environ.get("CHAOS_INBOX") == "memory" else (SqlStore(engine), engine)
    finally:
        counting.cancel()
        resting.cancel()
        await engine.dispose()


async def count_tasks(every_s: float) -> None:
    """Log how many tasks there are, as often as wanted; 0: never."""
    while every_s:
        await asyncio.sleep(every_s)
        log.info("tasks.counted", count=len(asyncio.all_tasks()))


chaos = Service("chaos", lifespan=open_store, retry=RETRY)
witness = Service("witness", lifespan=open_store, retry=RETRY)
bystander = Service("bystander", lifespan=open_store, retry=RETRY)
skeptic = Service("skeptic", lifespan=open_store, retry=RETRY)
# Whoever fails keeps its followers waiting, so it does not wait long itself.
books = Service(
    "books", lifespan=open_store, retry=RetryPolicy(immediate=1, delays_s=(0.5, 0.5, 1.0)), partitions=PARTITIONS
)


async def note(context: Context, op_id: UUID, did: Did) -> None:
    """Note an effect in the handler's transaction, or in one of its own if the library has none."""
    if os.environ.get("CHAOS_INBOX") == "memory":
        async with context.resource(AsyncEngine).begin() as connection:
            await connection.execute(noted(op_id, did, WORKER))
        return
    await context.resource(AsyncSession).execute(noted(op_id, did, WORKER))


@chaos.on_command(Apply, group=GROUP)
async def apply(command: Apply, context: Context) -> None:
    """Note, tell, and fail the first times if that is wanted, after the effect: it must be undone."""
    await note(context, command.op_id, Did.APPLIED)
    await context.publish(Applied(op_id=command.op_id))
    leaks.leak()
    if context.attempt <= command.fails:
        raise RuntimeError(f"run {context.attempt} of {command.fails} that fail")


if os.environ.get("CHAOS_VERSION") == "2":

    @chaos.on_command(Extra)
    async def more(command: Extra, context: Context) -> None:
        """Note."""
        await note(context, command.op_id, Did.APPLIED)

    @chaos.on_request(AskExtra)
    async def answer_more(request: AskExtra, context: Context) -> str:
        """Note, and say who did."""
        await note(context, request.op_id, Did.ANSWERED)
        return WORKER


@chaos.on_command(Spoil)
async def spoil(command: Spoil, context: Context) -> None:
    """Note, and reject: nothing of it may stay."""
    await note(context, command.op_id, Did.APPLIED)
    raise Reject("spoilt")


@chaos.on_command(Kill)
async def kill(command: Kill, context: Context) -> None:
    """Note, and die."""
    await note(context, command.op_id, Did.APPLIED)
    os.kill(os.getpid(), signal.SIGKILL)


@chaos.on_command(Stall, timeout=120)
async def stall(command: Stall, context: Context) -> None:
    """Take long before the effect: no transaction of the database is open meanwhile."""
    if command.blocks:
        time.sleep(command.seconds)  # noqa: ASYNC251 - a handler that blocks the event loop is the fault
    else:
        await asyncio.sleep(command.seconds)
    await note(context, command.op_id, Did.APPLIED)


@chaos.on_command(Transfer)
async def transfer(command: Transfer, context: Context) -> None:
    """Move the money; the lower account first, so that two transfers never wait for each other."""
    session = context.resource(AsyncSession)
    moves = sorted([(command.source, -command.cents), (command.target, command.cents)])
    for number, cents in moves:
        moved = update(ACCOUNTS).where(ACCOUNTS.c.number == number).values(cents=ACCOUNTS.c.cents + cents)
        await session.execute(moved)
    await note(context, command.op_id, Did.TRANSFERRED)
    await context.publish(Applied(op_id=command.op_id))


@books.on_command(Enter)
async def enter(command: Enter, context: Context) -> None:
    """Write the entry, and fail the first times if that is wanted: it must be undone, and its followers must wait."""
    await context.resource(AsyncSession).execute(entered(command.account, command.number))
    await note(context, command.op_id, Did.ENTERED)
    if context.attempt <= command.fails:
        raise RuntimeError(f"run {context.attempt} of {command.fails} that fail")


@chaos.on_request(Ask)
async def answer(request: Ask, context: Context) -> str:
    """Note, and say who did."""
    await note(context, request.op_id, Did.ANSWERED)
    return WORKER


@witness.on_event(Applied)
async def hear(event: Applied, context: Context) -> None:
    """Note that the news arrived."""
    await note(context, event.op_id, Did.HEARD)


@bystander.on_event(Applied)
async def overhear(event: Applied, context: Context) -> None:
    """Note that the news arrived here too."""
    await note(context, event.op_id, Did.OVERHEARD)


@skeptic.on_event(Applied)
async def doubt(_event: Applied, _context: Context) -> None:
    """Never believe it."""
    raise RuntimeError("not convinced")
