"""Fixtures of the AMQP adapter's own tests."""

from collections.abc import AsyncIterator

import pytest

from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from tests.support.broker import Broker
from tests.support.proxy import TcpProxy
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import work


@pytest.fixture
def fast() -> bool:
    """Whether channels take the fast path. A test file that wants both overrides this."""
    return True


@pytest.fixture
async def rig(broker: Broker, fast: bool) -> AsyncIterator[AmqpRig]:
    """Transports of the session's broker, each behind its own proxy."""
    rig = AmqpRig(broker, fast=fast)
    yield rig
    await rig.aclose()


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[TcpProxy]:
    """A proxy in front of the session's broker."""
    address = Node.parse(broker.url).url
    async with TcpProxy(address.host or "", address.port or 0) as proxy:
        yield proxy


@pytest.fixture
def near(broker: Broker, proxy: TcpProxy) -> Node:
    """The broker's address by way of the proxy."""
    return Node(Node.parse(broker.url).url.with_host("127.0.0.1").with_port(proxy.port))


@pytest.fixture
async def connection(near: Node, fast: bool) -> AsyncIterator[Connection]:
    """A connection by way of the proxy."""
    connection = await Connection.open(
        near, name="test", heartbeat_s=10, timeout_s=30.0, fast_path=FastPath(is_on=fast)
    )
    yield connection
    await connection.aclose()


@pytest.fixture
async def queue(rig: AmqpRig) -> str:
    """The queue behind the rig's exchange of commands."""
    await (await rig.transport()).declare(work(rig.names))
    return rig.names.queue("orders", "commands")
