"""What starting costs: import time beside that of the dependencies alone, time until it consumes, memory at rest.

    python -m benchmarks.startup --url amqp://… [--database sqlite+aiosqlite:///file]

The dependencies' own time is that of importing, in a fresh process and in the same order, every module of others that
`from messaging import Service, …` brings along.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from benchmarks.peers.role import REPORT, end_with_parent, say
from messaging import Command, Context, Service, Settings
from messaging.stores.base import Store

__all__ = ["import_ratios", "main"]

IMPORT_ROUNDS: Final = 7
TIMEOUT_S: Final = 60.0
_LIST: Final = """
import sys
before = set(sys.modules)
from messaging import Command, Context, Service, Settings
print(" ".join(n for n in sys.modules if n not in before and n.split(".")[0] != "messaging"))
"""
# The names of a service: `import messaging` alone loads nothing yet.
_OURS: Final = """
import time
t = time.perf_counter()
from messaging import Command, Context, Service, Settings
print(time.perf_counter() - t)
"""
_THEIRS: Final = """
import importlib, sys, time
names = sys.argv[1].split()
t = time.perf_counter()
for name in names:
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
print(time.perf_counter() - t)
"""


def import_ratios(rounds: int = IMPORT_ROUNDS) -> list[float]:
    """Return how long importing what a service needs takes, in the time that its dependencies take alone, by round."""
    names = _python(_LIST)
    pairs = [(float(_python(_OURS)), float(_python(_THEIRS, names))) for _ in range(rounds + 1)]
    # The first pair fills the caches of the file system.
    return [ours_s / theirs_s for ours_s, theirs_s in pairs[1:]]


def _python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return done.stdout.strip()


class PlaceOrder(Command, name="orders.place_order"):
    """What it consumes; nobody sends it."""

    order_id: UUID


async def rest(url: str, database: str | None) -> None:
    """Start a service, say how long that took, and rest until this process is ended."""
    store = None if database is None else await store_of(database)
    began_s = time.perf_counter()
    service = Service("orders", Settings(broker_url=url), store=store)

    @service.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None: ...

    async with service:
        say(REPORT + json.dumps({"consuming_ms": (time.perf_counter() - began_s) * 1e3}))
        await asyncio.Event().wait()


async def store_of(database: str) -> Store:
    """Return a store in a database."""
    # An extra, and not to be counted where it is not used.
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    from messaging.stores.sql import SqlStore  # noqa: PLC0415

    store = SqlStore(create_async_engine(database))
    await store.create_tables()
    return store


def main() -> None:
    """Start, and rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--database")
    options = parser.parse_args()
    end_with_parent()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(rest(options.url, options.database))


if __name__ == "__main__":
    main()
