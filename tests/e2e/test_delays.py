"""Commands that wait at a real broker for their time, without a database, while the broker goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from messaging import Context, Service, Settings
from messaging.ambient import real_ambient
from messaging.cli.broker_node import PrivateNode
from messaging.core.delays import delay_topology
from messaging.core.topology import Names
from messaging.errors import TopologyConflictError
from messaging.security.development_files import Contract, init_development
from messaging.transports.amqp.transport import AmqpTransport
from tests.support.broker import start_node
from tests.support.shop import PlaceOrder
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COUNT = 40


class Shop:
    """Orders and users on one broker, from keys in a folder."""

    def __init__(self, node: PrivateNode, folder: Path) -> None:
        self._node = node
        self.names = Names(f"d{uuid4().hex[:12]}")
        settings = Settings(broker_url=node.url, keys=folder, namespace=self.names.namespace)
        self.orders = Service("orders", settings)
        self.users = Service("users", settings)
        self.handled: list[tuple[UUID, datetime]] = []
        self.orders.on_command(PlaceOrder)(self.place_order)
        contracts = {service.name: Contract(handles=service.subscriptions) for service in (self.orders, self.users)}
        init_development(folder, contracts, ambient=real_ambient(), operator="test")

    async def place_order(self, command: PlaceOrder, context: Context) -> None:
        self.handled.append((context.message_id, datetime.now(UTC)))

    async def apply(self) -> None:
        """Make the levels, as `messaging topology apply --delays` does."""
        transport = AmqpTransport([self._node.url], ambient=real_ambient())
        await transport.connect()
        await transport.declare(delay_topology(self.names, "orders"))
        await transport.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for service in (self.orders, self.users):
                await stack.enter_async_context(service)
            yield


@pytest.fixture
def shop(node: PrivateNode, tmp_path: Path) -> Shop:
    return Shop(node, tmp_path / "keys")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_what_waits_at_the_broker_outlives_it_and_comes_once_and_not_before_its_time(
    shop: Shop, node: PrivateNode, end: str
) -> None:
    async with shop.running():
        await shop.apply()
        # Young quorum queues may come back from a kill without a leader (docs/topology.md): what RabbitMQ knows of them
        # is on disk a moment later, or when it is told.
        await asyncio.sleep(3.0)
        await asyncio.to_thread(node.ctl, "eval", "[dets:sync(Table) || Table <- dets:all()].")
        deliver_at = datetime.now(UTC) + timedelta(seconds=7)
        sent = [await shop.users.send(PlaceOrder(number=number), deliver_at=deliver_at) for number in range(COUNT)]
        await asyncio.to_thread(node.stop if end == "stop" else node.kill)
        await asyncio.to_thread(start_node, node)

        await eventually(
            lambda: len(shop.handled) >= COUNT, 90.0, what=lambda: f"{len(shop.handled)} of {COUNT} have come"
        )
        await asyncio.sleep(1.0)

    assert sorted(message_id for message_id, _ in shop.handled) == sorted(sent)
    assert min(handled_at for _, handled_at in shop.handled) >= deliver_at


async def test_all_of_one_moment_come_over_several_levels_and_none_before_it(shop: Shop) -> None:
    async with shop.running():
        await shop.apply()
        deliver_at = datetime.now(UTC) + timedelta(seconds=6.2)
        await asyncio.gather(
            *(shop.users.send(PlaceOrder(number=number), deliver_at=deliver_at) for number in range(COUNT))
        )
        await eventually(lambda: len(shop.handled) >= COUNT, what="all have come")

    assert min(handled_at for _, handled_at in shop.handled) >= deliver_at


async def test_without_levels_the_sender_is_told_what_makes_them_and_goes_on(shop: Shop) -> None:
    async with shop.running():
        with pytest.raises(TopologyConflictError, match="messaging topology apply --delays"):
            await shop.users.send(PlaceOrder(), deliver_at=datetime.now(UTC) + timedelta(minutes=5))
        await shop.users.send(PlaceOrder())
        await eventually(lambda: len(shop.handled) == 1, what="a command without a delay came")
