import asyncio

import pytest

from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.settlements import How
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from tests.transports.amqp_rig import AmqpRig, parcel

pytestmark = pytest.mark.broker


@pytest.fixture
def fast() -> bool:
    return False


async def test_settlements_that_did_not_get_out_are_counted(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    publisher = await open_channel(connection, confirms=True)
    channel = await open_channel(connection, confirms=False)
    arrived: list[Message] = []
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(3)))
    await channel.consume(queue, arrived.append, prefetch=10, tag="t1")
    await eventually(lambda: len(arrived) == 3)

    for message in arrived:
        channel.settle(message.delivery_tag, How.ACK)
    await channel.aclose()

    assert channel.unsaid_settlements == 3
    await publisher.aclose()
