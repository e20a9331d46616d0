"""A landscape of real service processes on a real broker: keys, databases, logs and a namespace of its own."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import httpx

from messaging import Service, Settings
from messaging.ambient import real_ambient
from messaging.cli.broker_probe import free_port
from messaging.security.development_files import Contract, init_development
from services.demo.programs import Program
from services.demo.settings import environment_with
from services.gateway import gateway
from services.orders import orders
from services.users import users
from tests.support.waiting import LIMIT_S

__all__ = ["OPERATOR", "Landscape", "open_landscape"]

OPERATOR: Final = "ops:tester"
_HOST: Final = "127.0.0.1"


class Landscape:
    """Processes of the example services.

    Args:
        broker_url: A running broker.
        folder: Home of everything they write.
    """

    def __init__(self, broker_url: str, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(broker_url=broker_url, keys=folder / "keys", namespace=f"e2e-{uuid4().hex[:12]}")
        self.gateway_port = free_port()
        self._programs: list[Program] = []
        contracts = {service.name: Contract(handles=service.subscriptions) for service in (users, orders, gateway)}
        init_development(folder / "keys", contracts, ambient=real_ambient(), operator=OPERATOR.removeprefix("ops:"))

    @property
    def base_url(self) -> str:
        """HTTP address of the gateway."""
        return f"http://{_HOST}:{self.gateway_port}"

    def add(self, service: str, *options: str, **variables: str) -> Program:
        """Return a new process of a service, not started yet; further ones of the same service share the work.

        Args:
            service: Its name.
            *options: Further arguments of `messaging run`, for services other than the gateway.
            **variables: Its environment beyond what all have.
        """
        is_gateway = service == "gateway"
        port = self.gateway_port if is_gateway else free_port()
        arguments = [f"services.{service}"]
        if not is_gateway:
            arguments += ["--log-format", "json", "--health-port", str(port), *options]
        program = Program(
            f"{service}-{len(self._programs)}",
            arguments,
            environment=environment_with({**self._variables(), **variables}),
            health_url=f"http://{_HOST}:{port}/readyz",
            log_folder=self.folder,
        )
        self._programs.append(program)
        return program

    async def start(self, *services: str, **variables: str) -> list[Program]:
        """Start one process for each name and wait until all are ready."""
        programs = [self.add(service, **variables) for service in services]
        for program in programs:
            program.start()
        await asyncio.gather(*(program.ready() for program in programs))
        return programs

    def client(self) -> httpx.AsyncClient:
        """Return an HTTP client of the gateway."""
        return httpx.AsyncClient(base_url=self.base_url, timeout=LIMIT_S, trust_env=False)

    def sender(self) -> Service:
        """Return the gateway's service without its HTTP face, to be used in this process."""
        return Service("gateway", self.settings)

    def placed_orders(self) -> set[UUID]:
        """Return the orders that the orders service's database holds as placed."""
        with closing(sqlite3.connect(f"file:{self.folder / 'orders.db'}?mode=ro", uri=True, timeout=30)) as connection:
            rows = connection.execute("SELECT order_id FROM orders WHERE status = 'placed'").fetchall()
        return {UUID(row[0]) for row in rows}

    def stop(self) -> None:
        """Stop every process."""
        for program in self._programs:
            program.ask_to_stop()
        for program in self._programs:
            program.stop()

    def _variables(self) -> dict[str, str]:
        return {
            "MESSAGING_BROKER_URL": self.settings.broker_url,
            "MESSAGING_KEYS": str(self.folder / "keys"),
            "MESSAGING_NAMESPACE": self.settings.namespace,
            "USERS_DATABASE_URL": f"sqlite:///{self.folder / 'users.db'}",
            "ORDERS_DATABASE_URL": f"sqlite:///{self.folder / 'orders.db'}",
            # Longer than a machine that stands still for some seconds.
            "GATEWAY_REQUEST_TIMEOUT_S": "30",
            "GATEWAY_SEND_TIMEOUT_S": "30",
            "GATEWAY_HOST": _HOST,
            "GATEWAY_PORT": str(self.gateway_port),
        }


@asynccontextmanager
async def open_landscape(broker_url: str, folder: Path) -> AsyncIterator[Landscape]:
    """Lend an empty landscape whose processes end with the block."""
    landscape = Landscape(broker_url, folder)
    try:
        yield landscape
    finally:
        await asyncio.to_thread(landscape.stop)
