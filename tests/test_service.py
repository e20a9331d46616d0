"""A service from the outside: starting, sending, stopping, and what is refused with which words."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from messaging import (
    ConfigurationError,
    Context,
    Event,
    Fault,
    Reject,
    RequestTimeoutError,
    Service,
    Settings,
)
from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from messaging.security.trust import BUNDLE_FILE
from messaging.transports.memory import MemoryBroker
from tests.support.logs import Logs, captured_logs
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder, RenameUser
from tests.support.waiting import eventually, holds


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with captured_logs() as found:
        yield found


@pytest.fixture
def settings() -> Settings:
    return Settings.development(request_timeout_s=30.0, drain_timeout_s=30.0)


def an_orders(settings: Settings | None, handled: list[int] | None = None) -> Service:
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        if command.number < 0:
            raise Reject("no such number")
        if handled is not None:
            handled.append(command.number)

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 0 if handled is None else len(handled)

    return orders


async def test_two_services_with_the_same_settings_find_each_other(settings: Settings) -> None:
    handled: list[int] = []
    faults: list[Fault] = []
    users = Service("users", settings)

    @users.on_fault(PlaceOrder)
    async def failed(fault: Fault, context: Context) -> None:
        faults.append(fault)

    async with an_orders(settings, handled), users:
        await users.send(PlaceOrder(number=1))
        await users.send(PlaceOrder(number=-1))
        await users.settled(timeout=60.0)
        assert await users.request(CountOrders(), timeout=30.0) == 1

    assert handled == [1]
    assert [fault.reason for fault in faults] == ["no such number"]


async def test_a_service_is_its_own_customer_too(settings: Settings) -> None:
    handled: list[int] = []

    async with an_orders(settings, handled) as orders:
        await orders.send(PlaceOrder(number=2))
        await orders.settled()

    assert handled == [2]


async def test_a_service_without_handlers_is_a_client(settings: Settings) -> None:
    async with an_orders(settings), Service("users", settings) as users:
        assert await users.request(CountOrders()) == 0
        assert users.subscriptions.is_empty
        assert users.health.is_ready


async def test_a_request_repeated_under_its_id_is_answered_from_the_first_run(settings: Settings) -> None:
    handled: list[int] = []
    message_id = uuid4()

    async with an_orders(settings, handled) as orders:
        first = await orders.request(CountOrders(), message_id=message_id)
        await orders.send(PlaceOrder())
        await orders.settled()
        second = await orders.request(CountOrders(), message_id=message_id)

    assert (first, second) == (0, 0)


async def test_a_request_to_a_stopped_service_ends_at_its_deadline(settings: Settings) -> None:
    orders = an_orders(settings)
    async with Service("users", settings) as users:
        async with orders:
            pass
        with pytest.raises(RequestTimeoutError):
            await users.request(CountOrders(), timeout=0.05)


@pytest.mark.parametrize("name", ["", "Orders", "orders.eu", "ops", "amq-orders", "x" * 33])
def test_a_name_that_breaks_the_grammar_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a service"):
        Service(name)


async def test_what_does_not_run_cannot_send(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="'orders' does not run: use `async with"):
        await an_orders(settings).send(PlaceOrder())


async def test_a_second_start_is_refused(settings: Settings) -> None:
    async with an_orders(settings) as orders:
        with pytest.raises(ConfigurationError, match="runs already"):
            await orders.start()


async def test_stopping_twice_is_stopping_once_and_it_may_start_again(settings: Settings, logs: Logs) -> None:
    handled: list[int] = []
    orders = an_orders(settings, handled)
    await orders.stop()
    for number in range(2):
        await orders.start()
        await orders.send(PlaceOrder(number=number))
        await orders.settled()
        await orders.stop()
        await orders.stop()

    assert handled == [0, 1]
    assert [event for event in logs.events if event.startswith("service.")] == [
        "service.started",
        "service.stopped",
    ] * 2


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("when", ["opening", "cancelled"])
async def test_a_start_that_fails_leaves_nothing_behind(settings: Settings, when: str) -> None:
    is_broken = True

    @asynccontextmanager
    async def resources(service: Service) -> AsyncIterator[None]:
        assert await service.publish(OrderPlaced())
        if is_broken and when == "opening":
            raise BrokenError
        if is_broken:
            await asyncio.Event().wait()
        yield

    orders = Service("orders", settings, lifespan=resources)
    starting = asyncio.create_task(orders.start())
    await asyncio.wait([starting], timeout=0.05)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled() if when == "cancelled" else isinstance(starting.exception(), BrokenError)
    with pytest.raises(ConfigurationError, match="does not run"):
        await orders.send(PlaceOrder())

    is_broken = False
    async with orders:
        assert orders.health.is_ready


async def test_the_lifespan_is_open_while_handlers_run_and_closed_after_the_drain(settings: Settings) -> None:
    steps: list[str] = []
    gate = asyncio.Event()

    @asynccontextmanager
    async def resources(_: Service) -> AsyncIterator[list[str]]:
        steps.append("opened")
        yield [*steps]
        steps.append("closed")

    orders = Service("orders", settings, lifespan=resources)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await gate.wait()
        steps.append("handled")

    async with orders:
        await orders.send(PlaceOrder())
        await eventually(lambda: orders.running == 1)
        stopping = asyncio.create_task(orders.stop())
        await holds(lambda: not stopping.done(), 0.02)
        assert not orders.health.is_ready
        gate.set()
        await stopping

    assert steps == ["opened", "handled", "closed"]


async def test_a_message_that_another_service_owns_cannot_be_handled(settings: Settings) -> None:
    users = Service("users", settings)

    @users.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"'users' handles orders\.place_order, which 'orders' owns"):
        await users.start()


async def test_health_tells_the_course_of_life(settings: Settings) -> None:
    orders = an_orders(settings)
    assert (orders.health.is_live, orders.health.is_ready) == (True, False)

    async with orders:
        assert orders.health.is_ready
        assert orders.health.details["service"] == "orders"
        assert orders.health.details["link"] == "connected"

    assert not orders.health.is_ready
    assert orders.running == 0


async def test_settings_are_read_from_the_environment_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = an_orders(None)
    monkeypatch.setenv("MESSAGING_NAMESPACE", "Not A Namespace")

    with pytest.raises(ConfigurationError, match="cannot be a namespace"):
        await orders.start()

    monkeypatch.setenv("MESSAGING_NAMESPACE", "elsewhere")
    assert orders.settings.namespace == "elsewhere"


async def test_settling_waits_for_what_comes_back_and_gives_up_in_time(settings: Settings) -> None:
    gate = asyncio.Event()
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await gate.wait()

    async with orders:
        await orders.send(PlaceOrder())
        with pytest.raises(TimeoutError):
            await orders.settled(timeout=0.1)
        gate.set()
        await orders.settled(timeout=60.0)

    await orders.settled(timeout=60.0)


async def test_settling_on_a_broker_elsewhere_looks_at_the_services_own_queues(settings: Settings) -> None:
    async with an_orders(settings) as orders:
        orders._running_with = Settings(broker_url="amqp://127.0.0.1/")
        await orders.send_many(PlaceOrder(number=number) for number in range(10))
        await orders.settled(timeout=60.0)

        assert orders.health.details["counts"] == {"handled": 10}


class Keys:
    """A folder of development keys, as the command line makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, *services: Service) -> None:
        contracts = {service.name: Contract(handles=service.subscriptions) for service in services}
        init_development(self.folder, contracts, ambient=real_ambient(), operator="test")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


async def test_keys_from_a_folder_serve_as_well(keys: Keys, logs: Logs) -> None:
    handled: list[int] = []
    settings = Settings(broker_url="memory://", keys=keys.folder)
    orders, users = an_orders(settings, handled), Service("users", settings)
    keys.make(orders, users)

    async with orders, users:
        await users.send(PlaceOrder(number=3))
        await users.settled()

    assert handled == [3]
    assert logs.events.count("trust.development_keys") == 2


async def test_a_newer_bundle_is_taken_while_it_runs(keys: Keys, logs: Logs) -> None:
    settings = Settings(broker_url="memory://", keys=keys.folder, trust_poll_s=0.01)
    orders, users = an_orders(settings), Service("users", settings)
    keys.make(orders)

    async with orders:
        keys.make(orders, users)
        await eventually(lambda: "trust.reloaded" in logs.events)
        async with users:
            assert await users.request(CountOrders()) == 0


class UserRegistered(Event, name="users.user_registered"):
    pass


async def test_an_event_that_policy_does_not_grant_fails_at_start_with_the_line_to_add(keys: Keys) -> None:
    settings = Settings(broker_url="memory://", keys=keys.folder)
    orders, users = an_orders(settings), Service("users", settings)
    keys.make(orders, users)

    @orders.on_event(UserRegistered)
    async def greet(event: UserRegistered, context: Context) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"add 'orders' to policy\.subscribe\['users\.user_registered'\]"):
        await orders.start()


# ---- signals


@pytest.fixture
def kill() -> Callable[[int], None]:
    """Send this very process a signal; the event loop has a handler for it."""
    return lambda signum: os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it(
    settings: Settings, logs: Logs, kill: Callable[[int], None], signum: int
) -> None:
    gate = asyncio.Event()
    finished = []
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await gate.wait()
        finished.append(command.number)

    started = asyncio.Event()
    serving = asyncio.create_task(orders.serve(on_started=started.set))
    await started.wait()
    await orders.send(PlaceOrder(number=1))
    await eventually(lambda: orders.running == 1)
    kill(signum)
    await eventually(lambda: "service.draining" in logs.events)
    await holds(lambda: not serving.done(), 0.02)
    gate.set()
    await serving

    assert finished == [1]
    assert logs.events[-1] == "service.stopped"


async def test_a_signal_while_it_starts_ends_it_cleanly(settings: Settings, kill: Callable[[int], None]) -> None:
    orders = an_orders(settings)
    broker = settings.shared(MemoryBroker, MemoryBroker)

    async with broker.stalled():
        serving = asyncio.create_task(orders.serve())
        await holds(lambda: not serving.done(), 0.02)
        kill(signal.SIGTERM)
        await eventually(serving.done)

    assert serving.exception() is None
    async with orders:
        assert orders.health.is_ready


async def test_a_cancelled_serve_stops_and_says_so(settings: Settings, logs: Logs) -> None:
    orders = an_orders(settings)
    started = asyncio.Event()
    serving = asyncio.create_task(orders.serve(on_started=started.set))
    await started.wait()
    serving.cancel()
    await asyncio.wait([serving])

    assert serving.cancelled()
    assert logs.events[-1] == "service.stopped"


async def test_a_start_that_fails_ends_serve_with_its_error() -> None:
    orders = an_orders(Settings(broker_url="memory://"))

    with pytest.raises(ConfigurationError, match="MESSAGING_KEYS"):
        await orders.serve()


def test_run_blocks_until_a_signal_comes(settings: Settings, logs: Logs, kill: Callable[[int], None]) -> None:
    async def kill_once_ready(service: Service) -> None:
        await eventually(lambda: service.health.is_ready)
        kill(signal.SIGTERM)

    @asynccontextmanager
    async def resources(service: Service) -> AsyncIterator[None]:
        killing = asyncio.create_task(kill_once_ready(service))
        yield
        await killing

    Service("orders", settings, lifespan=resources).run()

    assert logs.events[-1] == "service.stopped"


STUBBORN = """
import asyncio, os, signal
from messaging import Command, Service, Settings

class Wait(Command, name="orders.wait"):
    pass

orders = Service("orders", Settings.development())

@orders.on_command(Wait)
async def wait(command, context):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)

async def main():
    loop = asyncio.get_running_loop()
    await orders.serve(on_started=lambda: loop.create_task(orders.send(Wait())))

asyncio.run(main())
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, timeout=120, check=False)

    assert done.returncode == -signal.SIGTERM


async def test_a_service_that_nobody_ever_started_is_named(settings: Settings) -> None:
    async with an_orders(settings) as orders:
        with pytest.raises(ConfigurationError, match="no keys of 'users'"):
            await orders.send(RenameUser())


async def test_a_service_that_starts_again_refuses_a_bundle_older_than_it_had(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    shop = Contract(handles=Subscriptions())
    init_development(folder, {"shop": shop}, ambient=real_ambient())
    older = (folder / BUNDLE_FILE).read_bytes()
    init_development(folder, {"shop": shop, "web": shop}, ambient=real_ambient())
    service = Service("shop", Settings(broker_url="memory://", keys=folder))
    async with service:
        assert service.health.is_ready

    (folder / BUNDLE_FILE).write_bytes(older)

    with pytest.raises(ConfigurationError, match="version 1 is older than version 2"):
        await service.start()
