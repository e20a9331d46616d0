import asyncio

import aiormq
import pytest

from messaging.errors import PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import OutcomeUnknownError
from messaging.transports.amqp.fast import FastChannel
from messaging.transports.amqp.plain import PlainChannel
from messaging.transports.amqp.settlements import How
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from tests.transports.amqp_rig import AmqpRig, parcel
from tests.transports.rig import KEY, LIMIT_S

pytestmark = pytest.mark.broker


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_connection_decides_the_kind(connection: Connection, fast: bool) -> None:
    channel = await open_channel(connection, confirms=True)

    assert isinstance(channel, FastChannel if fast else PlainChannel)
    await channel.aclose()


async def test_publish_returns_the_future_of_its_confirm(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await open_channel(connection, confirms=True)

    confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(50)]

    assert not any(confirm.done() for confirm in confirms)
    await asyncio.gather(*confirms)
    await channel.aclose()
    assert queue


async def test_returned_message_fails_alone(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await open_channel(connection, confirms=True)

    good, bad = channel.publish(parcel(rig.names.commands, 1)), channel.publish(parcel(rig.names.commands, 2, key="no"))

    await good
    with pytest.raises(UnroutableError, match="'no'"):
        await bad
    assert not channel.is_closed
    await channel.aclose()


async def test_routing_key_beyond_amqp_is_refused_and_the_channel_lives(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    channel = await open_channel(connection, confirms=True)

    for key in ("k" * 256, "ü" * 200):
        with pytest.raises(PublishNotConfirmedError) as caught:
            await channel.publish(parcel(rig.names.commands, 1, key=key))
        assert caught.value.refused

    await channel.publish(parcel(rig.names.commands, 2))
    await channel.aclose()


async def test_cut_fails_what_is_open_with_an_unknown_outcome(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await open_channel(connection, confirms=True)
    proxy.hold()
    # More than aiormq's queue takes: those that wait for room in it must end as well.
    confirms = [channel.publish(parcel(rig.names.commands, number, body=bytes(50_000))) for number in range(250)]
    await asyncio.sleep(0)

    proxy.cut()

    outcomes = await asyncio.wait_for(asyncio.gather(*confirms, return_exceptions=True), LIMIT_S)
    assert {type(outcome) for outcome in outcomes} == {OutcomeUnknownError}
    assert channel.is_closed
    assert channel.gone.done()
    with pytest.raises(OutcomeUnknownError):
        await channel.publish(parcel(rig.names.commands))
    await channel.aclose()


async def test_channel_closed_by_the_broker_tells_its_reason(connection: Connection) -> None:
    channel = await open_channel(connection, confirms=True)

    with pytest.raises(OutcomeUnknownError) as caught:
        await channel.publish(parcel("no.such.exchange"))

    assert isinstance(caught.value.reason, aiormq.ChannelNotFoundEntity)
    assert "no.such.exchange" in await channel.gone
    await channel.aclose()


async def test_closing_fails_what_is_open_and_leaves_the_connection(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    for _ in range(5):
        channel = await open_channel(connection, confirms=True)
        confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(100)]

        await channel.aclose()

        outcomes = await asyncio.gather(*confirms, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {OutcomeUnknownError, type(None)}
    assert connection.is_open


async def test_consumes_and_settles(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher = await open_channel(connection, confirms=True)
    channel = await open_channel(connection, confirms=False)
    arrived: list[Message] = []
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(10)))

    await channel.consume(queue, arrived.append, prefetch=100, tag="t1")
    await eventually(lambda: len(arrived) == 10)
    assert channel.is_consuming
    assert all(channel.settle(message.delivery_tag, How.ACK) for message in arrived)
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
    channel = await open_channel(connection, confirms=False)

    with pytest.raises(aiormq.ChannelNotFoundEntity):
        await channel.consume("no.such.queue", lambda _: None, prefetch=1, tag="t1")

    await channel.aclose()
    assert connection.is_open


async def test_bodies_of_every_size_arrive_as_they_were_sent(connection: Connection, rig: AmqpRig, queue: str) -> None:
    # RabbitMQ agrees to frames of 128 KiB: 131 064 bytes of body and 8 around them.
    sizes = [0, 1, 131_063, 131_064, 131_065, 262_128, 262_129, 1_000_000]
    bodies = [(bytes(range(251)) * (size // 251 + 1))[:size] for size in sizes]
    publisher = await open_channel(connection, confirms=True)
    channel = await open_channel(connection, confirms=False)
    arrived: list[Message] = []

    confirms = [publisher.publish(parcel(rig.names.commands, number, body=body)) for number, body in enumerate(bodies)]
    await channel.consume(queue, arrived.append, prefetch=100, tag="t1")
    await asyncio.gather(*confirms)
    await eventually(lambda: len(arrived) == len(bodies))

    assert [message.body for message in arrived] == bodies
    assert [message.message_id for message in arrived] == [f"{number:032x}" for number in range(len(bodies))]
    await channel.aclose()
    await publisher.aclose()


async def test_deliveries_may_be_settled_in_any_order(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher = await open_channel(connection, confirms=True)
    channel = await open_channel(connection, confirms=False)
    arrived: list[Message] = []
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(200)))
    await channel.consume(queue, arrived.append, prefetch=0, tag="t1")
    await eventually(lambda: len(arrived) == 200)

    # Every number once, far from its neighbours: 77 and 200 have no common divisor.
    order = [number * 77 % 200 for number in range(200)]
    given_back = set(order[:20])
    for place, number in enumerate(order):
        channel.settle(arrived[number].delivery_tag, How.GIVE_BACK if number in given_back else How.ACK)
        if place % 9 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(arrived) == 220)

    again = arrived[200:]
    assert all(message.redelivered for message in again)
    assert {int(message.message_id or "", 16) for message in again} == given_back
    for message in again:
        channel.settle(message.delivery_tag, How.ACK)
    await channel.settled()
    await channel.cancel()
    transport = await rig.transport()

    async def all_is_taken() -> bool:
        depth = await transport.depth(queue)
        return depth is not None and depth.consumers == 0

    # A quorum queue counts a cancelled consumer until the last of its messages is settled. What the broker has read
    # need not be there yet: of many single settlements some came back when their channel closed at once (3.10.8).
    await eventually(all_is_taken)
    await channel.aclose()
    depth = await transport.depth(queue)
    assert depth is not None
    assert depth.messages == 0
    await publisher.aclose()


async def test_only_the_returned_ones_of_many_fail(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await open_channel(connection, confirms=True)

    confirms = [
        channel.publish(parcel(rig.names.commands, number, key="no" if number % 7 == 3 else KEY))
        for number in range(200)
    ]
    outcomes = await asyncio.gather(*confirms, return_exceptions=True)

    failed = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, UnroutableError)}
    assert failed == {number for number in range(200) if number % 7 == 3}
    assert {outcome for number, outcome in enumerate(outcomes) if number not in failed} == {None}
    assert queue
    await channel.aclose()


async def test_message_that_cannot_be_written_shifts_no_confirm(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    channel = await open_channel(connection, confirms=True)

    keys = [KEY, "k" * 256, KEY, "no", "\ud800", KEY]
    confirms = [channel.publish(parcel(rig.names.commands, number, key=key)) for number, key in enumerate(keys)]
    outcomes = await asyncio.gather(*confirms, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        PublishNotConfirmedError,
        type(None),
        UnroutableError,
        PublishNotConfirmedError,
        type(None),
    ]
    assert queue
    await channel.aclose()
