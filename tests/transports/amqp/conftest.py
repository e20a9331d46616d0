"""Fixtures of the AMQP adapter's own tests."""

from collections.abc import AsyncIterator

import pytest

from messaging.transports.amqp.errors import Node
from tests.support.broker import Broker
from tests.support.proxy import TcpProxy
from tests.transports.amqp_rig import AmqpRig


@pytest.fixture
async def rig(broker: Broker) -> AsyncIterator[AmqpRig]:
    """Transports of the session's broker, each behind its own proxy."""
    rig = AmqpRig(broker)
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
