"""Where the story happens: three processes over a real broker, or everything in this process on the embedded one.

Both give the story the same few things to hold on to; the services are the same objects either way.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import httpx
import uvicorn

from messaging import Service, Settings
from messaging.ambient import real_ambient
from messaging.cli.broker_probe import free_port
from messaging.security.development_files import Contract, init_development
from services.demo.audience import Audience
from services.demo.brisk import DELAYS_S
from services.demo.brisk import orders as brisk_orders
from services.demo.brokers import FoundBroker
from services.demo.errors import DemoError
from services.demo.journal import journal_file
from services.demo.programs import Program
from services.demo.settings import environment_with
from services.demo.traces import take_away
from services.gateway import gateway
from services.gateway.app import create_app
from services.gateway.service import create as create_gateway
from services.gateway.settings import GatewaySettings
from services.orders.service import create as create_orders
from services.orders.settings import OrdersSettings
from services.users import users
from services.users.service import create as create_users
from services.users.settings import UsersSettings

__all__ = ["OPERATOR", "Stage", "open_stage"]

OPERATOR: Final = "ops:demo"
# Shorter than the service's own, so that four vain attempts take seconds.
USERS_TIMEOUT_S: Final = 0.5
_HOST: Final = "127.0.0.1"
_READY_TIMEOUT_S: Final = 60.0
# What a visitor of the gateway waits for an answer at most.
_GATEWAY_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02


class Stage(Protocol):
    """What the story holds on to."""

    @property
    def settings(self) -> Settings:
        """Broker and keys, for the operator."""

    @property
    def base_url(self) -> str:
        """HTTP address of the gateway."""

    @property
    def orders_log(self) -> Path:
        """The orders service's log, one JSON object per line."""

    @property
    def audience(self) -> Audience:
        """A fourth service, in this process, that only listens."""

    def place_of(self, service: str) -> str:
        """Return where a service runs, for the reader."""

    async def stop_users(self) -> None:
        """Stop the users service, as an outage would."""

    async def start_users(self) -> None:
        """Start the users service again."""


@asynccontextmanager
async def open_stage(broker: FoundBroker, folder: Path) -> AsyncIterator[Stage]:
    """Start the services for the time of the block.

    Args:
        broker: A running broker.
        folder: Home of keys, databases and logs; emptied by the caller.
    """
    for name in ("data", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if broker.is_embedded:
        async with _embedded(folder) as stage:
            yield stage
    else:
        async with _processes(broker, folder) as stage:
            yield stage


class _ProcessStage:
    """Users, orders and gateway as processes."""

    def __init__(
        self, settings: Settings, *, base_url: str, programs: Mapping[str, Program], audience: Audience
    ) -> None:
        self.settings = settings
        self.base_url = base_url
        self.audience = audience
        self._programs = programs

    @property
    def orders_log(self) -> Path:
        return self._programs["orders"].log_file

    def place_of(self, service: str) -> str:
        return f"process {self._programs[service].pid}"

    async def stop_users(self) -> None:
        await asyncio.to_thread(self._programs["users"].stop)

    async def start_users(self) -> None:
        self._programs["users"].start()
        await self._programs["users"].ready()


@asynccontextmanager
async def _processes(broker: FoundBroker, folder: Path) -> AsyncIterator[Stage]:
    # On a broker that others use, too, every story has names of its own.
    namespace = f"demo-{secrets.token_hex(4)}" if broker.is_shared else "demo"
    settings = Settings(broker_url=broker.url, keys=folder / "keys", namespace=namespace)
    audience = Audience(settings)
    acting = (users, brisk_orders, gateway, audience.service)
    contracts = {service.name: Contract(handles=service.subscriptions) for service in acting}
    init_development(folder / "keys", contracts, ambient=real_ambient(), operator=OPERATOR.removeprefix("ops:"))
    # Whoever still listened would have its queues made again, so they are taken away after everybody has stopped.
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        # First: a broker that cannot be reached is told at once, by this process, in one line.
        await stack.enter_async_context(audience.service)
        if broker.is_shared:
            last.push_async_callback(take_away, settings, [(name, c.handles) for name, c in contracts.items()])
        port = free_port()
        programs = stack.enter_context(_running(_programs(settings, folder, gateway_port=port)))
        async with asyncio.TaskGroup() as group:
            for program in programs.values():
                group.create_task(program.ready())
        yield _ProcessStage(settings, base_url=f"http://{_HOST}:{port}", programs=programs, audience=audience)


def _programs(settings: Settings, folder: Path, *, gateway_port: int) -> dict[str, Program]:
    environment = environment_with(
        {
            "MESSAGING_BROKER_URL": settings.broker_url,
            "MESSAGING_KEYS": str(folder / "keys"),
            "MESSAGING_NAMESPACE": settings.namespace,
            "USERS_DATABASE_URL": _database_url(folder, "users"),
            "ORDERS_DATABASE_URL": _database_url(folder, "orders"),
            "ORDERS_USERS_TIMEOUT_S": str(USERS_TIMEOUT_S),
            "GATEWAY_REQUEST_TIMEOUT_S": str(_GATEWAY_TIMEOUT_S),
            "GATEWAY_SEND_TIMEOUT_S": str(_GATEWAY_TIMEOUT_S),
            "GATEWAY_HOST": _HOST,
            "GATEWAY_PORT": str(gateway_port),
        }
    )

    def worker(name: str, target: str) -> Program:
        port = free_port()
        arguments = ["messaging", "run", target, "--log-format", "json", "--health-port", str(port)]
        return program(name, arguments, port=port)

    def program(name: str, arguments: list[str], *, port: int) -> Program:
        health_url = f"http://{_HOST}:{port}/readyz"
        return Program(name, arguments, environment=environment, health_url=health_url, log_folder=folder / "logs")

    return {
        "users": worker("users", "services.users:users"),
        "orders": worker("orders", "services.demo.brisk:orders"),
        "gateway": program("gateway", ["services.gateway"], port=gateway_port),
    }


@contextmanager
def _running(programs: Mapping[str, Program]) -> Iterator[Mapping[str, Program]]:
    try:
        for program in programs.values():
            program.start()
        yield programs
    finally:
        # All at once, then one after the other: their drains overlap.
        for program in programs.values():
            program.ask_to_stop()
        for program in programs.values():
            program.stop()


class _EmbeddedStage:
    """Users, orders and gateway in this process, on the embedded broker."""

    def __init__(self, settings: Settings, *, folder: Path, audience: Audience, port: int) -> None:
        self.settings = settings
        self.base_url = f"http://{_HOST}:{port}"
        self.orders_log = journal_file(folder)
        self.audience = audience
        self._users_settings = UsersSettings(database_url=_database_url(folder, "users"))
        self._users: Service | None = None

    def place_of(self, service: str) -> str:
        return f"{service} in this process"

    async def stop_users(self) -> None:
        service, self._users = self._users, None
        if service is not None:
            await service.stop()

    async def start_users(self) -> None:
        self._users = create_users(self.settings, own=self._users_settings)
        await self._users.start()


@asynccontextmanager
async def _embedded(folder: Path) -> AsyncIterator[Stage]:
    settings = Settings.development(namespace="demo")
    port = free_port()
    stage = _EmbeddedStage(settings, folder=folder, audience=Audience(settings), port=port)
    own = OrdersSettings(database_url=_database_url(folder, "orders"), users_timeout_s=USERS_TIMEOUT_S)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stage.stop_users)
        await stage.start_users()
        await stack.enter_async_context(create_orders(settings, own=own, delays_s=DELAYS_S))
        await stack.enter_async_context(stage.audience.service)
        await stack.enter_async_context(_served(create_gateway(settings), port=port))
        yield stage


@asynccontextmanager
async def _served(service: Service, *, port: int) -> AsyncIterator[None]:
    settings = GatewaySettings(
        host=_HOST, port=port, request_timeout_s=_GATEWAY_TIMEOUT_S, send_timeout_s=_GATEWAY_TIMEOUT_S
    )
    app = create_app(service, settings)
    server = _QuietServer(uvicorn.Config(app, host=_HOST, port=port, log_config=None))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        try:
            async with httpx.AsyncClient(base_url=f"http://{_HOST}:{port}", trust_env=False) as client:
                await _until_ready(client, serving)
            yield
        finally:
            server.should_exit = True
            # Here rather than in the group, which would cancel it when the demo is interrupted.
            await asyncio.wait({serving})


class _QuietServer(uvicorn.Server):
    """A server that leaves the signals to the demo."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def _until_ready(client: httpx.AsyncClient, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(_READY_TIMEOUT_S):
        while not serving.done():
            with suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(_POLL_S)
    raise DemoError("the gateway ended while starting; try again")


def _database_url(folder: Path, service: str) -> str:
    return f"sqlite+aiosqlite:///{(folder / 'data' / f'{service}.db').absolute()}"
