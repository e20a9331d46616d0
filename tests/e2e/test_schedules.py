"""Scheduled messages across real deaths: a real broker, real databases, programs that are killed."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from messaging.stores.sql import SqlStore
from tests.support.broker import Broker
from tests.support.databases import database_url, postgres_server, postgres_url
from tests.support.guarded import guarded
from tests.support.reminding import RUNS
from tests.support.waiting import eventually

__all__ = ["database_url", "postgres_server", "postgres_url"]

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COUNT = 50


class Programs:
    """Starts programs of one service on one database and one broker."""

    def __init__(self, broker: Broker, database: str, folder: Path) -> None:
        self._database = database
        self._environment = {
            **os.environ,
            "MESSAGING_BROKER_URL": broker.url,
            "MESSAGING_KEYS": str(folder),
            "MESSAGING_NAMESPACE": f"t{uuid4().hex[:12]}",
        }
        subscriptions = Subscriptions(commands=frozenset({("orders.remind", 1)}))
        contracts = {"orders": Contract(handles=subscriptions)}
        init_development(folder, contracts, ambient=real_ambient(), operator="test")

    async def start(self, *arguments: str, **environment: str) -> Process:
        command = ("-m", "tests.support.reminding", self._database, *arguments)
        return await asyncio.create_subprocess_exec(
            *guarded(sys.executable, *command), env={**self._environment, **environment}, stdout=PIPE
        )

    async def plan(self, count: int, delay_s: float) -> int:
        """Schedule commands in a process that is dead when this returns; returns when they are due."""
        program = await self.start("plan", str(count), str(delay_s))
        said, _ = await program.communicate()
        assert program.returncode == -9
        return int(said)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        program = await self.start("serve")
        assert program.stdout is not None
        try:
            assert await program.stdout.readline() == b"serving\n"
            yield program
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()

    async def runs(self) -> list[tuple[int, int]]:
        engine = create_async_engine(self._database)
        try:
            async with engine.connect() as connection:
                return [(row.number, row.ran_at_ms) for row in await connection.execute(select(RUNS))]
        finally:
            await engine.dispose()

    async def waiting(self) -> int:
        engine = create_async_engine(self._database)
        try:
            return len(await SqlStore(engine).schedule("orders").waiting(limit=1000))
        finally:
            await engine.dispose()

    async def leaving(self) -> int:
        engine = create_async_engine(self._database)
        try:
            waiting, parked = await SqlStore(engine).outbox("orders").depth()
        finally:
            await engine.dispose()
        return waiting + parked


@pytest.fixture
def programs(broker: Broker, database_url: str, tmp_path: Path) -> Programs:
    return Programs(broker, database_url, tmp_path / "keys")


async def test_what_a_killed_process_scheduled_comes_once_at_its_time_and_not_before(programs: Programs) -> None:
    due_ms = await programs.plan(COUNT, 8.0)
    async with programs.serving(), programs.serving():

        async def all_ran() -> bool:
            return len(await programs.runs()) >= COUNT

        await eventually(all_ran, what="everything scheduled ran")
        await asyncio.sleep(1.0)
        runs = await programs.runs()

    assert sorted(number for number, _ in runs) == list(range(COUNT))
    assert min(ran_at_ms for _, ran_at_ms in runs) >= due_ms
    assert await programs.waiting() == 0


async def test_processes_that_die_while_it_is_due_lose_none_and_run_none_twice(programs: Programs) -> None:
    # Far enough that its planner is dead before: it would release and lease the rows itself.
    await programs.plan(COUNT, 8.0)
    for step in ("after_relay", "after_commit"):
        victim = await programs.start("serve", MESSAGING_FAILPOINT=step)
        assert await asyncio.wait_for(victim.wait(), 120) == -9
    async with programs.serving():

        async def all_left() -> bool:
            return len(await programs.runs()) >= COUNT and await programs.leaving() == 0

        # What the first one had published and not deleted is published again when its lease ends.
        await eventually(all_left, 60.0, what="everything scheduled ran and left the outbox")
        await asyncio.sleep(1.0)

    assert sorted(number for number, _ in await programs.runs()) == list(range(COUNT))
    assert await programs.waiting() == 0
