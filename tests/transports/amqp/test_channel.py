import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiormq
import pytest
from aiormq.abc import DeliveredMessage

from messaging.errors import PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp.channel import PlainChannel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node, OutcomeUnknownError
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import KEY, work

pytestmark = pytest.mark.broker

Opens = Callable[[], Awaitable[PlainChannel]]


def parcel(exchange: str, number: int = 0, *, key: str = KEY, body: bytes = b"x") -> Parcel:
    message_id = f"{number:032x}"
    return Parcel(
        body=body,
        exchange=exchange,
        routing_key=key,
        mandatory=True,
        message_id=message_id,
        properties=aiormq.spec.Basic.Properties(message_id=message_id),
    )


@pytest.fixture
async def connection(near: Node) -> AsyncIterator[Connection]:
    connection = await Connection.open(near, name="test", heartbeat_s=10, timeout_s=10.0)
    yield connection
    await connection.aclose()


@pytest.fixture
async def queue(rig: AmqpRig) -> str:
    await (await rig.transport()).declare(work(rig.names))
    return rig.names.queue("orders", "commands")


async def test_publish_returns_the_future_of_its_confirm(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await PlainChannel.open(connection, confirms=True)

    confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(50)]

    assert not any(confirm.done() for confirm in confirms)
    await asyncio.gather(*confirms)
    await channel.aclose()
    assert queue


async def test_returned_message_fails_alone(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await PlainChannel.open(connection, confirms=True)

    good, bad = channel.publish(parcel(rig.names.commands, 1)), channel.publish(parcel(rig.names.commands, 2, key="no"))

    await good
    with pytest.raises(UnroutableError, match="'no'"):
        await bad
    assert not channel.is_closed
    await channel.aclose()


async def test_routing_key_beyond_amqp_is_refused_and_the_channel_lives(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    channel = await PlainChannel.open(connection, confirms=True)

    for key in ("k" * 256, "ü" * 200):
        with pytest.raises(PublishNotConfirmedError) as caught:
            await channel.publish(parcel(rig.names.commands, 1, key=key))
        assert caught.value.refused

    await channel.publish(parcel(rig.names.commands, 2))
    await channel.aclose()


async def test_cut_fails_what_is_open_with_an_unknown_outcome(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await PlainChannel.open(connection, confirms=True)
    proxy.hold()
    # More than aiormq's queue takes: those that wait for room in it must end as well.
    confirms = [channel.publish(parcel(rig.names.commands, number, body=bytes(50_000))) for number in range(400)]
    await asyncio.sleep(0)

    proxy.cut()

    outcomes = await asyncio.wait_for(asyncio.gather(*confirms, return_exceptions=True), 10.0)
    assert {type(outcome) for outcome in outcomes} == {OutcomeUnknownError}
    assert channel.is_closed
    assert channel.gone.done()
    with pytest.raises(OutcomeUnknownError):
        await channel.publish(parcel(rig.names.commands))
    await channel.aclose()


async def test_channel_closed_by_the_broker_tells_its_reason(connection: Connection) -> None:
    channel = await PlainChannel.open(connection, confirms=True)

    with pytest.raises(OutcomeUnknownError) as caught:
        await channel.publish(parcel("no.such.exchange"))

    assert isinstance(caught.value.reason, aiormq.ChannelNotFoundEntity)
    assert "no.such.exchange" in await channel.gone
    await channel.aclose()


async def test_closing_fails_what_is_open_and_leaves_the_connection(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    for _ in range(5):
        channel = await PlainChannel.open(connection, confirms=True)
        confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(100)]

        await channel.aclose()

        outcomes = await asyncio.gather(*confirms, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {OutcomeUnknownError, type(None)}
    assert connection.is_open


async def test_consumes_and_settles(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher = await PlainChannel.open(connection, confirms=True)
    channel = await PlainChannel.open(connection, confirms=False)
    arrived: list[DeliveredMessage] = []
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(10)))

    await channel.consume(queue, arrived.append, prefetch=100, tag="t1")
    await eventually(lambda: len(arrived) == 10)
    assert channel.is_consuming
    assert all(channel.settle(message.delivery_tag or 0, How.ACK) for message in arrived)
    await channel.cancel()
    await channel.settled()
    await channel.aclose()

    assert not channel.is_consuming
    assert not channel.settle(1, How.ACK)
    depth = await (await rig.transport()).depth(queue)
    assert depth is not None
    assert depth.messages == 0
    await publisher.aclose()


async def test_consuming_from_nowhere_raises_what_the_broker_says(connection: Connection) -> None:
    channel = await PlainChannel.open(connection, confirms=False)

    with pytest.raises(aiormq.ChannelNotFoundEntity):
        await channel.consume("no.such.queue", lambda _: None, prefetch=1, tag="t1")

    await channel.aclose()
    assert connection.is_open


async def test_settlements_that_did_not_get_out_are_counted(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    publisher = await PlainChannel.open(connection, confirms=True)
    channel = await PlainChannel.open(connection, confirms=False)
    arrived: list[DeliveredMessage] = []
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(3)))
    await channel.consume(queue, arrived.append, prefetch=10, tag="t1")
    await eventually(lambda: len(arrived) == 3)

    for message in arrived:
        channel.settle(message.delivery_tag or 0, How.ACK)
    await channel.aclose()

    assert channel.unsaid_settlements == 3
    await publisher.aclose()
