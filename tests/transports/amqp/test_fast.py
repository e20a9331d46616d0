import asyncio
from typing import Any

import aiormq
import pamqp.commands
import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from messaging.errors import UnroutableError
from messaging.transports.amqp import fast
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.confirms import WINDOW
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node, OutcomeUnknownError
from messaging.transports.amqp.fast import FastChannel
from messaging.transports.amqp.settlements import How
from messaging.transports.amqp.splitter import Splitter
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually, holds
from tests.transports.amqp_rig import AmqpRig, parcel
from tests.transports.rig import LIMIT_S, depth_of

pytestmark = pytest.mark.broker

MISSING = "no.such.exchange"


async def opened(connection: Connection, *, confirms: bool = True) -> FastChannel:
    channel = await open_channel(connection, confirms=confirms)
    assert isinstance(channel, FastChannel)
    return channel


def splitter_of(connection: Connection) -> Splitter:
    assert connection.splitter is not None
    return connection.splitter


def from_broker(connection: Connection, frame: Any, channel: int = 0) -> None:
    """Let the connection read a frame as if the broker had sent it."""
    splitter_of(connection).data_received(pamqp.frame.marshal(frame, channel))


class Traffic:
    """Publishes on one channel without a pause, until it is stopped or the channel refuses."""

    def __init__(self, channel: FastChannel, exchange: str) -> None:
        self.confirms: list[asyncio.Future[None]] = []
        self._channel = channel
        self._exchange = exchange
        self._task = asyncio.create_task(self._run())

    async def flows(self) -> None:
        """Return once some messages are on their way."""
        await eventually(lambda: len(self.confirms) > 100)

    async def stop(self) -> list[BaseException | None]:
        """Return the outcomes."""
        self._task.cancel()
        await asyncio.wait({self._task})
        return await asyncio.wait_for(asyncio.gather(*self.confirms, return_exceptions=True), LIMIT_S)

    async def _run(self) -> None:
        while not self._channel.is_closed:
            self.confirms.append(self._channel.publish(parcel(self._exchange, len(self.confirms))))
            if len(self.confirms) % 20 == 0:
                await asyncio.sleep(0)
                await asyncio.wait(self.confirms[-100:][:1])


# Writing.


async def test_flush_writes_in_this_turn_what_would_be_written_at_its_end(connection: Connection) -> None:
    channel = await opened(connection)
    written: list[bytes] = []
    splitter = splitter_of(connection)
    write = splitter.write

    def watched(data: bytes) -> None:
        written.append(data)
        write(data)

    splitter.write = watched  # type: ignore[method-assign]
    channel.flush()
    assert written == []

    confirms = [channel.publish(parcel("amq.fanout", number)) for number in range(3)]
    channel.flush()
    channel.flush()
    assert len(written) == 1

    outcomes = await asyncio.gather(*confirms, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnroutableError] * 3
    assert len(written) == 1
    await channel.aclose()


# The channel ends.


async def test_busy_channel_that_the_broker_closes_takes_nothing_with_it(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    neighbour = await opened(connection)
    beside = Traffic(neighbour, rig.names.commands)
    for _ in range(20):
        channel = await opened(connection)
        traffic = Traffic(channel, rig.names.commands)
        await traffic.flows()

        fatal = channel.publish(parcel(MISSING))
        with pytest.raises(OutcomeUnknownError, match=MISSING):
            await fatal

        outcomes = await traffic.stop()
        unknown = [outcome for outcome in outcomes if outcome is not None]
        assert {type(outcome) for outcome in unknown} <= {OutcomeUnknownError}
        assert all(MISSING in str(outcome) for outcome in unknown)
        assert MISSING in channel.gone.result()
        await channel.aclose()
        assert connection.is_open
    assert set(await beside.stop()) == {None}
    assert queue
    await neighbour.aclose()


async def test_close_by_the_broker_fails_all_in_the_step_in_which_it_is_read(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await opened(connection)
    proxy.hold()
    confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(50)]

    from_broker(connection, pamqp.commands.Channel.Close(404, "NOT_FOUND - x", 60, 40), channel._number)

    assert channel.is_closed
    assert all(confirm.done() for confirm in confirms)
    assert {str(confirm.exception()) for confirm in confirms} == {str(aiormq.ChannelNotFoundEntity("NOT_FOUND - x"))}
    assert not channel.settle(1, How.ACK)
    with pytest.raises(OutcomeUnknownError, match="NOT_FOUND - x"):
        await channel.publish(parcel(rig.names.commands))
    proxy.release()
    await channel.aclose()
    assert queue


async def test_closing_a_busy_channel_leaves_the_connection(connection: Connection, rig: AmqpRig, queue: str) -> None:
    for _ in range(20):
        channel = await opened(connection)
        traffic = Traffic(channel, rig.names.commands)
        await traffic.flows()

        await channel.aclose()

        assert {outcome for outcome in await traffic.stop() if not isinstance(outcome, OutcomeUnknownError)} == {None}
        assert connection.is_open
    assert queue


async def test_channel_that_closes_takes_no_more_and_waits_for_what_it_took(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "ENDING_TIMEOUT_S", 3 * LIMIT_S)
    channel = await opened(connection)
    proxy.hold()
    taken = [channel.publish(parcel(rig.names.commands, number)) for number in range(10)]

    closing = asyncio.create_task(channel.aclose())
    await asyncio.sleep(0)
    late = channel.publish(parcel(rig.names.commands, 10))

    assert channel.is_closed
    with pytest.raises(OutcomeUnknownError):
        await late
    await holds(lambda: not closing.done() and not any(confirm.done() for confirm in taken), 0.1)
    proxy.release()
    assert await asyncio.wait_for(asyncio.gather(*taken), 3 * LIMIT_S) == [None] * 10
    await closing
    assert connection.is_open
    assert await depth_of(await rig.transport(), queue) == 10


async def test_close_by_aiormq_itself_leaves_the_connection(connection: Connection, rig: AmqpRig, queue: str) -> None:
    for _ in range(20):
        channel = await opened(connection)
        traffic = Traffic(channel, rig.names.commands)
        await traffic.flows()

        await channel._channel.close()

        assert {type(outcome) for outcome in await traffic.stop()} <= {OutcomeUnknownError, type(None)}
        assert channel.gone.done()
        await channel.aclose()
        assert connection.is_open
    assert queue


async def test_silent_broker_does_not_hold_up_the_end(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await opened(connection)
    proxy.hold()
    confirm = channel.publish(parcel(rig.names.commands))

    # Two seconds for the confirm and two for the close. The client gives up a silent connection after 33.
    await asyncio.wait_for(channel.aclose(), 2.0 + 2.0 + 20.0)

    assert isinstance(confirm.exception(), OutcomeUnknownError)
    proxy.release()
    assert queue


async def test_channel_that_was_given_up_is_not_waited_for(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await opened(connection)
    proxy.hold()
    confirm = channel.publish(parcel(rig.names.commands))

    channel.give_up("it confirmed nothing in time")
    closing = asyncio.create_task(channel.aclose())
    await asyncio.sleep(0)

    assert isinstance(confirm.exception(), OutcomeUnknownError)
    proxy.release()
    await closing
    assert queue


# The connection ends.


async def test_connection_closed_by_the_broker_ends_every_channel_with_the_reason(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    channels = [await opened(connection) for _ in range(3)]
    traffics = [Traffic(channel, rig.names.commands) for channel in channels]
    await eventually(lambda: all(len(traffic.confirms) > 50 for traffic in traffics))

    # A method on a channel that was never opened.
    splitter_of(connection).write(pamqp.frame.marshal(pamqp.commands.Basic.Qos(), 1999))
    await asyncio.wait_for(asyncio.gather(*(channel.gone for channel in channels)), LIMIT_S)

    for channel, traffic in zip(channels, traffics, strict=True):
        assert "CHANNEL_ERROR" in channel.gone.result()
        assert {type(outcome) for outcome in await traffic.stop()} == {OutcomeUnknownError, type(None)}
    await eventually(lambda: not connection.is_open)
    assert "CHANNEL_ERROR" in connection.reason
    assert queue


@pytest.mark.parametrize(
    "frames",
    [
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\xce",
        b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x09\x99\x00\xce",
        b"\x07\x00\x01\x00\x00\x00\x01\x00\xce",
        b"\x03\x00\x01\xff\x00\x00\x00",
    ],
    ids=["cut method", "confirm of nothing", "kind", "size"],
)
async def test_what_cannot_be_read_ends_the_connection(
    connection: Connection, rig: AmqpRig, queue: str, frames: bytes
) -> None:
    channel = await opened(connection)
    assert channel._number == 1
    confirm = channel.publish(parcel(rig.names.commands))

    splitter_of(connection).data_received(frames)

    with pytest.raises(OutcomeUnknownError):
        await confirm
    assert channel.is_closed
    await eventually(connection.lost.done)
    assert not connection.is_open
    assert queue


# Holding back.


async def test_nothing_is_written_while_the_broker_blocks_and_all_of_it_after(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    watcher = await rig.transport()
    publisher, channel = await opened(connection), await opened(connection, confirms=False)
    arrived: list[Message] = []
    await channel.consume(queue, arrived.append, prefetch=1, tag="t1")
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(2)))
    await eventually(lambda: len(arrived) == 1)

    from_broker(connection, pamqp.commands.Connection.Blocked("low on disk"))
    confirms = [publisher.publish(parcel(rig.names.commands, number)) for number in range(10)]
    channel.settle(arrived[0].delivery_tag, How.ACK)
    settled = asyncio.create_task(channel.settled())

    await holds(lambda: len(arrived) == 1 and not any(confirm.done() for confirm in confirms), 0.2)
    assert await depth_of(watcher, queue) == 1
    assert channel.unsaid_settlements == 1
    assert not settled.done()
    from_broker(connection, pamqp.commands.Connection.Unblocked())
    await asyncio.wait_for(asyncio.gather(*confirms, settled), LIMIT_S)
    await eventually(lambda: len(arrived) == 2)
    assert channel.unsaid_settlements == 0
    await channel.aclose()
    await publisher.aclose()


async def test_nothing_is_written_while_the_socket_is_full(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await opened(connection)

    splitter_of(connection).pause_writing()
    confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(10)]
    await holds(lambda: not any(confirm.done() for confirm in confirms), 0.2)
    assert channel._out
    splitter_of(connection).resume_writing()

    await asyncio.wait_for(asyncio.gather(*confirms), LIMIT_S)
    assert not channel._out
    assert queue
    await channel.aclose()


async def test_settlements_that_did_not_get_out_are_counted(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher, channel = await opened(connection), await opened(connection, confirms=False)
    arrived: list[Message] = []
    await channel.consume(queue, arrived.append, prefetch=10, tag="t1")
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(3)))
    await eventually(lambda: len(arrived) == 3)

    splitter_of(connection).pause_writing()
    for message in arrived:
        channel.settle(message.delivery_tag, How.ACK)
    await channel.aclose()

    assert channel.unsaid_settlements == 3
    splitter_of(connection).resume_writing()
    await publisher.aclose()


async def test_settlements_are_said_before_the_channel_closes(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher, channel = await opened(connection), await opened(connection, confirms=False)
    arrived: list[Message] = []
    await channel.consume(queue, arrived.append, prefetch=10, tag="t1")
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(3)))
    await eventually(lambda: len(arrived) == 3)

    for message in arrived:
        channel.settle(message.delivery_tag, How.ACK)
    await channel.aclose()

    assert channel.unsaid_settlements == 0
    assert await depth_of(await rig.transport(), queue) == 0
    await publisher.aclose()


async def test_more_than_the_window_is_refused_and_room_comes_back(
    connection: Connection, proxy: TcpProxy, rig: AmqpRig, queue: str
) -> None:
    channel = await opened(connection)
    proxy.hold()
    confirms = [channel.publish(parcel(rig.names.commands, number)) for number in range(WINDOW)]

    with pytest.raises(BufferError, match="room"):
        channel.publish(parcel(rig.names.commands))
    waiting = asyncio.create_task(channel.room(1))
    await holds(lambda: not waiting.done(), 0.1)
    proxy.release()

    await asyncio.wait_for(waiting, LIMIT_S)
    await asyncio.gather(*confirms, channel.publish(parcel(rig.names.commands)))
    assert queue
    await channel.aclose()


# What it keeps from others, and from asyncio.


async def test_publishing_past_it_is_refused(connection: Connection) -> None:
    channel = await opened(connection)

    with pytest.raises(RuntimeError, match="FastChannel"):
        await channel._channel.basic_publish(b"x", exchange="", routing_key="q")

    await channel.aclose()


async def test_taker_that_raises_ends_nothing(connection: Connection, rig: AmqpRig, queue: str) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    publisher, channel = await opened(connection), await opened(connection, confirms=False)
    arrived: list[Message] = []

    def take(message: Message) -> None:
        arrived.append(message)
        raise ValueError("a bug of the taker")

    await channel.consume(queue, take, prefetch=10, tag="t1")
    await asyncio.gather(*(publisher.publish(parcel(rig.names.commands, number)) for number in range(3)))

    await eventually(lambda: len(arrived) == 3)
    assert [str(context["exception"]) for context in told] == ["a bug of the taker"] * 3
    assert connection.is_open
    await channel.aclose()
    await publisher.aclose()


async def test_message_that_aiormq_reads_is_handed_over_too(connection: Connection, rig: AmqpRig, queue: str) -> None:
    publisher, channel = await opened(connection), await opened(connection, confirms=False)
    arrived: list[Message] = []
    await channel.consume(queue, arrived.append, prefetch=10, tag="t1")

    splitter_of(connection).release(channel._number, channel)
    await publisher.publish(parcel(rig.names.commands, 5))

    await eventually(lambda: len(arrived) == 1)
    assert arrived[0].message_id == f"{5:032x}"
    await channel.aclose()
    await publisher.aclose()


async def test_returned_message_within_another_channels_traffic_fails_alone(
    connection: Connection, rig: AmqpRig, queue: str
) -> None:
    channels = [await opened(connection) for _ in range(2)]
    traffics = [Traffic(channel, rig.names.commands) for channel in channels]

    for number in range(50):
        with pytest.raises(UnroutableError):
            await channels[number % 2].publish(parcel(rig.names.commands, 10_000 + number, key="no"))

    for traffic in traffics:
        assert set(await traffic.stop()) == {None}
    assert queue


async def test_traffic_that_aiormq_does_not_see_keeps_the_link_alive(near: Node, rig: AmqpRig, queue: str) -> None:
    # The broker itself gives no sign of life for minutes.
    connection = await Connection.open(
        near, name="test", heartbeat_s=600, timeout_s=30.0, fast_path=FastPath(is_on=True)
    )
    channel = await opened(connection)
    traffic = Traffic(channel, rig.names.commands)
    signs_s: set[float] = set()

    def has_heard_three_times() -> bool:
        # What aiormq measures a stuck connection by.
        signs_s.add(channel._channel.connection._Connection__last_frame_time)  # type: ignore[attr-defined]
        return len(signs_s) >= 3

    await eventually(has_heard_three_times)

    assert set(await traffic.stop()) == {None}
    await channel.aclose()
    await connection.aclose()
    assert queue


async def test_deliveries_are_the_same_whatever_pieces_they_come_in(connection: Connection, queue: str) -> None:
    channel, found = await opened(connection, confirms=False), list[tuple[int, str, str | None, bytes]]()

    def keep(message: Message) -> None:
        found.append((message.delivery_tag, message.routing_key, message.message_id, message.body))

    await channel.consume(queue, keep, prefetch=0, tag="pieces")
    bodies = [b"", b"small", b"m" * 1000, b"l" * 200_000]
    wanted = [(tag, "key", f"id-{tag}", body) for tag, body in enumerate(bodies, start=1)]
    announced: list[Any] = []
    for tag, key, message_id, body in wanted:
        properties = pamqp.commands.Basic.Properties(message_id=message_id)
        announced.append(pamqp.commands.Basic.Deliver("pieces", tag, False, "ex", key))
        announced.append(ContentHeader(body_size=len(body), properties=properties))
        announced += [ContentBody(body[at : at + 100_000]) for at in range(0, len(body), 100_000)]
    frames = b"".join(pamqp.frame.marshal(frame, channel._number) for frame in announced)

    for size in (len(frames), 70_001, 1_021, 7):
        for at in range(0, len(frames), size):
            splitter_of(connection).data_received(frames[at : at + size])
        assert found == wanted
        found.clear()
    await channel.aclose()
