"""A worker is killed while it works: nothing is lost, the survivor takes over."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import BaseModel

from messaging import RemoteError, Request, RequestTimeoutError, Settings
from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.operators import Operator, open_operator
from messaging.security.development_files import Contract, init_development
from services.demo.programs import Program
from services.orders.contract import PlaceOrder
from services.users.contract import GetUser, RegisterUser, UserNotFound
from tests.support.broker import Broker
from tests.support.guarded import guarded
from tests.support.installation import Installation
from tests.support.landscape import OPERATOR, Landscape
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COMMANDS = 1_000
# The default of the settings: what a killed worker may have finished without a line in its log.
PREFETCH = 64
FAILURE_QUEUES = ("dead", "refused", "quarantine")


def handled_by(program: Program) -> int:
    # What has no end yet is being written, or was when its writer was killed.
    whole, _, _ = program.log_file.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return sum(line["event"] == "delivery.handled" and line["kind"] == "command" for line in lines)


async def depths(operator: Operator, service: str, parts: tuple[str, ...]) -> dict[str, int | None]:
    found = {part: await operator.transport.depth(operator.names.queue(service, part)) for part in parts}
    return {part: None if depth is None else depth.messages for part, depth in found.items()}


async def test_killing_one_of_two_workers_loses_none_of_1000_commands(landscape: Landscape) -> None:
    workers = [landscape.add("orders", "--log-level", "debug") for _ in range(2)]
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers), landscape.start("users"))
    user_id = uuid4()
    async with landscape.sender() as sender, open_operator(landscape.settings, OPERATOR) as operator:
        await sender.send(RegisterUser(user_id=user_id, name="Ada", email="ada@example.org"))

        async def is_registered() -> bool:
            try:
                return (await sender.request(GetUser(user_id=user_id))).user_id == user_id
            except (UserNotFound, RequestTimeoutError):
                return False

        await eventually(is_registered, what="the user was registered")
        commands = [
            PlaceOrder(order_id=uuid4(), user_id=user_id, item="Darjeeling", total_cents=number + 1)
            for number in range(COMMANDS)
        ]
        await sender.send_many(commands[: COMMANDS // 2])
        await eventually(lambda: max(map(handled_by, workers)) >= COMMANDS // 20, what="work was under way")
        # SQLite does not share its writer lock fairly: one of the two may have done all the work so far.
        victim, survivor = sorted(workers, key=handled_by, reverse=True)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        # Only now: however long this process may have slept, there is work left for the survivor.
        await sender.send_many(commands[COMMANDS // 2 :])

        await eventually(
            lambda: len(landscape.placed_orders()) == COMMANDS,
            180.0,
            what=lambda: f"{len(landscape.placed_orders())} of {COMMANDS} orders were placed",
        )

        async def all_counted() -> bool:
            try:
                return (await sender.request(GetUser(user_id=user_id))).orders_placed == COMMANDS
            except RequestTimeoutError:
                return False

        async def none_waits() -> bool:
            return await depths(operator, "orders", ("commands",)) == {"commands": 0}

        await eventually(all_counted, what="users had heard of every order")
        # What is committed is acknowledged and logged a moment later, and what the victim held comes again.
        await eventually(none_waits, what="nothing waits")
        await eventually(
            lambda: handled_by(victim) + handled_by(survivor) >= COMMANDS - PREFETCH, what="the logs tell of all work"
        )
        assert handled_by(victim) > 0
        assert handled_by(survivor) > 0
        assert await depths(operator, "orders", FAILURE_QUEUES) == dict.fromkeys(FAILURE_QUEUES, 0)
        assert await depths(operator, "users", FAILURE_QUEUES) == dict.fromkeys(FAILURE_QUEUES, 0)
    await survivor.ready()


KILLER = """
import os, signal
from pydantic import BaseModel
from messaging import Context, Request, Service

class Answer(BaseModel):
    number: int

class Ask(Request[Answer], name="shop.ask"):
    number: int

shop = Service("shop")

@shop.on_request(Ask)
async def ask(request: Ask, context: Context) -> Answer:
    if request.number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return Answer(number=request.number)
"""


class Answer(BaseModel):
    number: int


class Ask(Request[Answer], name="shop.ask"):
    number: int


async def test_a_request_that_kills_its_worker_kills_two_and_its_caller_is_told(broker: Broker, tmp_path: Path) -> None:
    subscriptions = Subscriptions(requests=frozenset({("shop.ask", 1)}))
    init_development(
        tmp_path / "keys", {"shop": Contract(handles=subscriptions)}, ambient=real_ambient(), operator="dev"
    )
    (tmp_path / "killer.py").write_text(KILLER)
    installation = Installation(folder=tmp_path, broker_url=broker.url)
    settings = Settings(broker_url=broker.url, keys=installation.keys, namespace=installation.namespace)
    deaths, is_over = 0, asyncio.Event()

    async def keep_running() -> None:
        nonlocal deaths
        while not is_over.is_set():
            worker = await asyncio.create_subprocess_exec(
                *guarded(sys.executable, "-m", "messaging", "run", "killer:shop"),
                cwd=tmp_path,
                env=installation.environment,
                stderr=asyncio.subprocess.DEVNULL,
            )
            over = asyncio.create_task(is_over.wait())
            ended = asyncio.create_task(worker.wait())
            await asyncio.wait([over, ended], return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            if ended.done():
                deaths += 1
            else:
                worker.terminate()
                await ended

    async with open_operator(settings, "ops:dev") as operator:
        keeping = asyncio.create_task(keep_running())
        queue = operator.names.queue("shop", "requests")

        async def is_fed() -> bool:
            depth = await operator.transport.depth(queue)
            return depth is not None and depth.consumers > 0

        try:
            await eventually(is_fed, what="the worker consumes")
            with pytest.raises(RemoteError, match="twice"):
                await operator.request(Ask(number=0), timeout_s=120.0)
            told_after = deaths
            answer = await operator.request(Ask(number=7), timeout_s=60.0)
        finally:
            is_over.set()
            await keeping

    assert answer.number == 7
    assert told_after == 2
