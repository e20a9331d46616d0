"""A program for tests of schedules: `python -m tests.support.reminding DATABASE (serve | plan COUNT DELAY_S)`.

`plan` schedules commands to itself, says so, and dies by SIGKILL at once. `serve` handles them and writes a line for
each: its number and when it ran. Broker and keys come from the environment.
"""

import asyncio
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.schema import Column, MetaData, Table
from sqlalchemy.types import BigInteger

from messaging import Command, Context, Service
from messaging.runtime import relay
from messaging.stores.sql import SqlStore

# What a dead process held comes again when its lease ends: the same after these as after the half minute of services.
LEASE_S = 10.0

metadata = MetaData()
# No primary key: a second run would leave a second row.
RUNS = Table("runs", metadata, Column("number", BigInteger), Column("ran_at_ms", BigInteger))


class Remind(Command, name="orders.remind"):
    """What is scheduled."""

    number: int


def say(what: object) -> None:
    """Tell whoever started the program."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(database: str, task: str, count: int, delay_s: float) -> None:
    """Serve, or plan and die."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    engine = create_async_engine(database)
    store = SqlStore(engine)
    orders = Service("orders", store=store)

    @orders.on_command(Remind)
    async def remind(command: Remind, context: Context) -> None:
        row = insert(RUNS).values(number=command.number, ran_at_ms=time.time_ns() // 1_000_000)
        await context.resource(AsyncSession).execute(row)

    if task == "serve":
        await orders.serve(on_started=lambda: say("serving"))
        return
    await store.create_tables()
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await orders.start()
    deliver_at = datetime.now(UTC) + timedelta(seconds=delay_s)
    for number in range(count):
        await orders.send(Remind(number=number), deliver_at=deliver_at)
    say(round(deliver_at.timestamp() * 1000))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, database, task, *rest = sys.argv
    with patch.object(relay, "LEASE_S", LEASE_S):
        asyncio.run(main(database, task, *(int(rest[0]), float(rest[1])) if rest else (0, 0.0)))
