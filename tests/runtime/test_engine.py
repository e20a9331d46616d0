"""Everything that consumes for one service: what it holds, what it gives back, and in which order it stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import Context, Fault, RetryPolicy, Service
from messaging.runtime import consumer
from messaging.security.trust import TrustStore
from messaging.stores.base import StoreUnavailableError
from messaging.stores.sql import SqlStore
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, PlaceOrder
from tests.support.stage import Stage
from tests.support.waiting import eventually, holds


class Gate:
    """An orders service whose handler waits until it may go on."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started: list[int] = []
        self.finished: list[int] = []
        self.service = Service("orders")

        @self.service.on_command(PlaceOrder)
        async def place_order(command: PlaceOrder, context: Context) -> None:
            self.started.append(command.number)
            await self.open.wait()
            self.finished.append(command.number)

        @self.service.on_command(CancelOrder)
        async def cancel_order(command: CancelOrder, context: Context) -> None:
            """Let a first clean delivery open the intake."""

    async def fill(self, stage: Stage, *, count: int) -> None:
        """Have one delivery run and others under way."""
        for number in range(count):
            await stage.send(PlaceOrder(number=number), sender="users")
        await eventually(lambda: len(self.started) > 0)


def load(stage: Stage, part: str = "commands") -> tuple[int, int]:
    found = stage.broker.loads()[stage.names.queue("orders", part)]
    return found.ready, found.unsettled


async def test_stopping_lets_what_runs_finish_and_gives_back_what_has_not_begun() -> None:
    gate = Gate()

    async with Stage(gate.service) as stage:
        await gate.fill(stage, count=4)
        stopping = asyncio.create_task(gate.service.stop())
        await holds(lambda: not stopping.done(), 0.05)
        gate.open.set()
        await stopping

        assert gate.finished == gate.started == [0]
        assert load(stage) == (3, 0)


async def test_what_overruns_the_drain_is_cancelled_and_given_back(logs: Logs) -> None:
    gate = Gate()

    async with Stage(gate.service, drain_timeout_s=0.02) as stage:
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()
        await gate.fill(stage, count=2)
        await eventually(lambda: len(gate.started) == 2)
        await gate.service.stop()

        assert gate.finished == []
        assert load(stage) == (2, 0)
        [entry] = logs.of("service.drain_timed_out")
        assert (entry["service"], entry["timeout_s"]) == ("orders", 0.02)


async def test_what_was_given_back_runs_after_the_next_start() -> None:
    gate = Gate()

    async with Stage(gate.service, drain_timeout_s=0.02) as stage:
        await gate.fill(stage, count=2)
        await gate.service.stop()
        gate.open.set()
        await gate.service.start(seams=stage._seams)
        await stage.settled()

        assert sorted(gate.finished) == [0, 1]
        assert load(stage) == (0, 0)


async def test_a_handler_may_still_send_while_its_service_drains() -> None:
    orders, users = Service("orders"), Service("users")
    may_go = asyncio.Event()
    heard = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await may_go.wait()
        assert await context.request(CountOrders()) == 1
        await context.publish(OrderPlaced(number=command.number))

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        heard.append(event.number)

    backoffice = Service("orders")

    @backoffice.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders, users) as stage:
        await backoffice.start(seams=stage._seams)
        await stage.send(PlaceOrder(number=5), sender="users")
        await eventually(lambda: orders.running == 1)
        stopping = asyncio.create_task(orders.stop())
        await asyncio.sleep(0)
        may_go.set()
        await stopping
        await stage.settled()
        await backoffice.stop()

    assert heard == [5]


async def test_each_kind_has_a_queue_of_its_own() -> None:
    service = Service("orders")

    @service.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    @service.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    @service.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        pass

    @service.on_fault(CancelOrder)
    async def failed(fault: Fault, context: Context) -> None:
        pass

    async with Stage(service):
        assert service._engine is not None
        assert service._engine.consumers == {
            f"messaging.orders.{part}": True for part in ("commands", "events", "requests", "faults")
        }


async def test_empty_queues_are_told_from_queues_with_work() -> None:
    gate = Gate()

    async with Stage(gate.service) as stage:
        engine = gate.service._engine
        assert engine is not None
        assert await engine.queues_are_empty()
        await gate.fill(stage, count=3)
        assert not await engine.queues_are_empty()
        gate.open.set()
        await stage.settled()
        assert await engine.queues_are_empty()

        stage.broker.delete(stage.names.rung("orders", 1_000))
        assert await engine.queues_are_empty()


@asynccontextmanager
async def trust_lost(stage: Stage, service: str) -> AsyncIterator[TrustStore]:
    """Take a service's bundle away: a trouble of its own, not of any message."""
    store = stage.trust._stores[service]
    kept, store._current = store._current, None
    try:
        yield store
    finally:
        store._current = kept


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    monkeypatch.setattr(consumer, "_HOLD_FIRST_S", 0.005)
    monkeypatch.setattr(consumer, "_HOLD_MAX_S", 0.01)
    return lambda limit_s: monkeypatch.setattr(consumer, "HOLD_LIMIT_S", limit_s)


@pytest.mark.usefixtures("quickly")
async def test_trouble_of_our_own_holds_deliveries_until_it_is_over(logs: Logs) -> None:
    gate = Gate()
    gate.open.set()

    async with Stage(gate.service) as stage:
        body = stage.sealed(PlaceOrder(number=1), "users")
        async with trust_lost(stage, "orders"):
            stage.inject("orders", "commands", body)
            stage.inject("orders", "commands", body)
            await eventually(lambda: logs.events.count("delivery.held") >= 3)

            assert gate.started == []
            assert not gate.service.health.is_ready
            assert any("deliveries are held: no trust bundle" in line for line in gate.service.health.problems)
            assert [stage.depth("orders", part) for part in ("dead", "refused", "quarantine")] == [0, 0, 0]
        await stage.settled()

        assert gate.started == [1]
        assert gate.service.health.is_ready


@pytest.mark.usefixtures("quickly")
async def test_what_is_held_when_the_service_stops_is_given_back() -> None:
    gate = Gate()

    async with Stage(gate.service) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        async with trust_lost(stage, "orders"):
            stage.inject("orders", "commands", body)
            await eventually(lambda: gate.service.running == 1)
            await gate.service.stop()

        assert load(stage) == (1, 0)


async def test_what_is_held_too_long_is_given_back(quickly: Callable[[float], None]) -> None:
    gate = Gate()
    gate.open.set()
    quickly(0.0)

    async with Stage(gate.service) as stage:
        body = stage.sealed(PlaceOrder(number=1), "users")
        async with trust_lost(stage, "orders"):
            stage.inject("orders", "commands", body)
            await eventually(lambda: bool(_counts(gate.service).get("given_back")))
        await stage.settled()

        assert gate.started == [1]


@pytest.mark.usefixtures("quickly")
async def test_a_missing_key_of_our_own_holds_the_message_and_its_lease_is_free() -> None:
    gate = Gate()
    gate.open.set()

    async with Stage(gate.service) as stage:
        body = stage.sealed(PlaceOrder(number=1), "users")
        keyring = stage.trust._keyrings["orders"]
        unwrapping = gate.service._parts.opener._unwrapping  # type: ignore[union-attr]
        kept = unwrapping._keyring
        unwrapping._keyring = type(keyring).generate("orders", realm=keyring.realm, roots=keyring.roots)
        stage.inject("orders", "commands", body)
        await eventually(lambda: not gate.service.health.is_ready)
        assert gate.started == []

        unwrapping._keyring = kept
        await stage.settled()
        assert gate.started == [1]
        assert stage.depth("orders", "dead") == 0


def _counts(service: Service) -> dict[str, int]:
    counts = service.health.details["counts"]
    assert isinstance(counts, dict)
    return counts


# ---- with a durable store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'orders.sqlite'}")
    made = SqlStore(engine)
    await made.create_tables()
    yield made
    await engine.dispose()


class Durable:
    """An orders service that publishes in the transaction of its handler, and fails when told."""

    def __init__(self, store: SqlStore) -> None:
        self.service = Service("orders", store=store, retry=RetryPolicy(immediate=0))
        self.failures = 0
        self.runs: list[int] = []

        @self.service.on_command(PlaceOrder)
        async def place_order(command: PlaceOrder, context: Context) -> None:
            self.runs.append(command.number)
            await context.publish(OrderPlaced(number=command.number))
            if self.failures:
                self.failures -= 1
                raise ConnectionError("after the publish")


def a_listener(heard: list[int]) -> Service:
    users = Service("users")

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        heard.append(event.number)

    return users


async def test_what_a_handler_published_leaves_when_it_has_committed_and_not_before(store: SqlStore) -> None:
    heard: list[int] = []
    durable = Durable(store)
    durable.failures = 1

    async with Stage(durable.service, a_listener(heard)) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        assert (durable.runs, heard) == ([1], [])

        await stage.advance(1.0)
        await eventually(lambda: heard == [1])
        assert durable.runs == [1, 1]


async def test_a_durable_inbox_remembers_over_a_restart(store: SqlStore) -> None:
    durable = Durable(store)

    async with Stage(durable.service) as stage:
        body = stage.sealed(PlaceOrder(number=1), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()
        await durable.service.stop()
        await durable.service.start(seams=stage._seams)
        stage.inject("orders", "commands", body)
        await stage.settled()

    assert durable.runs == [1]


async def test_what_was_committed_last_leaves_before_the_service_is_closed(store: SqlStore) -> None:
    heard: list[int] = []
    durable = Durable(store)

    async with Stage(durable.service, a_listener(heard)) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await eventually(lambda: durable.runs == [1])
        await durable.service.stop()
        await eventually(lambda: heard == [1])


async def test_a_service_is_not_idle_while_committed_messages_wait(store: SqlStore) -> None:
    heard: list[int] = []
    durable = Durable(store)

    async with Stage(durable.service, a_listener(heard)) as stage:
        for number in range(5):
            await stage.send(PlaceOrder(number=number), sender="users")
            await stage.settled()
            assert heard == list(range(number + 1))


async def test_old_rows_are_removed_now_and_then(store: SqlStore, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | Exception] = [3, StoreUnavailableError("the database does not answer"), 0]

    async def purge(_: SqlStore) -> int:
        answer = answers.pop(0) if answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(SqlStore, "purge", purge)
    monkeypatch.setattr("messaging.runtime.engine._PURGE_EVERY_S", 0.001)

    async with Stage(Durable(store).service):
        await eventually(lambda: not answers)

    assert logs.of("inbox.purged")[0]["removed"] == 3
    assert [entry["reason"] for entry in logs.of("inbox.unpurged")] == ["the database does not answer"]


async def test_requests_of_a_service_may_wait_in_a_replicated_queue() -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count(_request: CountOrders, _context: Context) -> int:
        return 7

    async with Stage(orders, requests_ha=True) as stage:
        users = await stage._publisher("users")
        answer = await users.request(CountOrders(), timeout_s=10.0)

        assert answer == 7
        depth = stage.broker.depth("messaging.orders.requests.ha")
        assert depth is not None
        assert depth.consumers == 1
        assert stage.broker.depth("messaging.orders.requests") is None
