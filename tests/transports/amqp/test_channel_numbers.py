import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.commands import Channel as Method
from pamqp.heartbeat import Heartbeat

from messaging.errors import ConnectionLostError, UnroutableError
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.channel import Channel, open_channel
from messaging.transports.amqp.channel_numbers import ChannelNumbers
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.declare import look
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.wire import CHANNEL_CLOSE, CHANNEL_CLOSE_OK
from tests.support.broker import Broker
from tests.support.strict_broker import StrictBroker
from tests.support.waiting import eventually
from tests.transports.amqp_rig import parcel

OPEN = pamqp.frame.marshal(Method.Open(), 1)
CLOSE = pamqp.frame.marshal(Method.Close(200, "", 0, 0), 1)
CLOSE_OK = pamqp.frame.marshal(Method.CloseOk(), 1)
QUESTION = pamqp.frame.marshal(Basic.Qos(), 1)


class Stream:
    """The numbers of a connection, and what was answered to the broker."""

    def __init__(self, *, highest: int = 1) -> None:
        self.answers: list[bytes] = []
        self.numbers = ChannelNumbers()
        self.numbers.answer = self.answers.append
        self.known: set[int] = set()
        self._highest = highest

    def take(self) -> int:
        return self.numbers.take(known=self.known, highest=self._highest)

    def opened(self) -> int:
        number = self.take()
        assert self.numbers.may_write(pamqp.frame.marshal(Method.Open(), number))
        return number

    @property
    def is_free(self) -> bool:
        try:
            self.numbers.give_back(self.take())
        except ConnectionLostError:
            return False
        return True


def test_numbers_are_given_in_turn_and_each_once() -> None:
    stream = Stream(highest=3)

    assert [stream.opened() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ConnectionLostError, match="all 3 channels"):
        stream.take()


def test_number_that_was_let_go_of_rests_the_longest() -> None:
    stream = Stream(highest=3)
    first = stream.opened()

    stream.numbers.note_read(first, CHANNEL_CLOSE)

    assert [stream.opened() for _ in range(3)] == [2, 3, 1]


def test_number_that_the_client_still_knows_is_not_given() -> None:
    stream = Stream(highest=2)
    stream.known = {1}

    assert stream.opened() == 2
    assert not stream.is_free


def test_without_a_bound_there_are_as_many_as_fit_into_a_frame() -> None:
    numbers = ChannelNumbers()

    given = {numbers.take(known=(), highest=0) for _ in range(65_535)}

    assert given == set(range(1, 65_536))
    with pytest.raises(ConnectionLostError, match="all 65535 channels"):
        numbers.take(known=(), highest=0)


def test_number_that_was_not_opened_is_given_back_and_an_open_one_is_not() -> None:
    stream = Stream()
    stream.numbers.give_back(stream.take())
    assert stream.is_free

    stream.numbers.give_back(stream.opened())

    assert not stream.is_free


def test_close_of_the_broker_is_answered_at_once_and_frees_the_number() -> None:
    stream = Stream()
    stream.opened()

    stream.numbers.note_read(1, CHANNEL_CLOSE)

    assert stream.answers == [CLOSE_OK]
    assert stream.is_free


def test_our_close_keeps_the_number_until_it_is_answered() -> None:
    stream = Stream()
    stream.opened()

    assert stream.numbers.may_write(CLOSE)
    assert not stream.is_free
    stream.numbers.note_read(1, CHANNEL_CLOSE_OK)

    assert stream.is_free
    assert stream.answers == []


def test_when_both_close_the_number_is_free_after_both_answers() -> None:
    stream = Stream()
    stream.opened()

    stream.numbers.may_write(CLOSE)
    stream.numbers.note_read(1, CHANNEL_CLOSE)
    assert stream.answers == [CLOSE_OK]
    assert not stream.is_free
    stream.numbers.note_read(1, CHANNEL_CLOSE_OK)

    assert stream.is_free


@pytest.mark.parametrize("frame", [QUESTION, CLOSE, CLOSE_OK, pamqp.frame.marshal(ContentBody(b"x"), 1)])
def test_behind_a_close_nothing_is_written_but_the_next_open(frame: bytes) -> None:
    stream = Stream()
    stream.opened()
    assert stream.numbers.may_write(QUESTION)

    stream.numbers.note_read(1, CHANNEL_CLOSE)

    assert not stream.numbers.may_write(frame)
    assert stream.numbers.may_write(OPEN)
    assert stream.numbers.may_write(frame)


@pytest.mark.parametrize("frame", [QUESTION, CLOSE, CLOSE_OK])
def test_behind_our_close_nothing_is_written_either(frame: bytes) -> None:
    stream = Stream()
    stream.opened()

    stream.numbers.may_write(CLOSE)

    assert not stream.numbers.may_write(frame)


@pytest.mark.parametrize("data", [b"AMQP\x00\x00\x09\x01", pamqp.frame.marshal(Heartbeat(), 0), CLOSE_OK[:3], b""])
def test_what_belongs_to_no_channel_always_leaves(data: bytes) -> None:
    assert ChannelNumbers().may_write(data)


def test_methods_of_the_connection_always_leave() -> None:
    assert ChannelNumbers().may_write(pamqp.frame.marshal(Basic.Qos(), 0))


def test_closes_of_channels_that_are_not_open_change_nothing() -> None:
    stream = Stream()

    stream.numbers.note_read(1, CHANNEL_CLOSE)
    stream.numbers.note_read(1, CHANNEL_CLOSE_OK)

    assert stream.answers == []
    assert stream.is_free


def test_without_a_socket_nothing_is_answered() -> None:
    stream = Stream()
    stream.opened()
    stream.numbers.answer = None

    stream.numbers.note_read(1, CHANNEL_CLOSE)

    assert stream.is_free


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def connected(url: str, fast: bool) -> AsyncIterator[Connection]:
    connection = await Connection.open(
        Node.parse(url), name="test", heartbeat_s=10, timeout_s=30.0, fast_path=FastPath(is_on=fast)
    )
    try:
        yield connection
    finally:
        await connection.aclose()


async def test_many_channels_that_are_closed_in_one_go_are_all_answered(fast: bool) -> None:
    # Twice what fits into aiormq's write queue, where it forgets the answers that do not.
    async with StrictBroker(answers_at=20) as broker, connected(broker.url, fast) as connection:
        for _ in range(3):
            found = await asyncio.gather(*(look(connection, f"missing.{number}") for number in range(20)))
            assert found == [None] * 20

        await eventually(lambda: not broker.closing, what="each close was answered")
        assert broker.complaints == []
        assert connection.is_open


async def test_number_is_not_opened_again_before_its_close_is_answered(fast: bool) -> None:
    async with StrictBroker(channel_max=40) as broker, connected(broker.url, fast) as connection:
        for _ in range(10):
            doomed = await open_channel(connection, confirms=False)
            broker.close(*broker.open)
            opening: list[asyncio.Task[Channel]] = []
            while not doomed.is_closed or len(opening) < 10:
                # One in each turn of the loop, whichever it is in which the client forgets the number.
                if len(opening) < 30:
                    opening.append(asyncio.create_task(open_channel(connection, confirms=False)))
                await asyncio.sleep(0)
            opened = await asyncio.gather(*opening)
            await asyncio.gather(*(channel.aclose() for channel in (doomed, *opened)))

        assert broker.complaints == []
        assert broker.open == set()


async def test_closes_that_cross_leave_the_connection_alive(fast: bool) -> None:
    async with StrictBroker(channel_max=2, crosses=True) as broker, connected(broker.url, fast) as connection:
        for _ in range(20):
            channel = await open_channel(connection, confirms=False)
            await channel.aclose()
            await eventually(lambda: not broker.closing, what="the close was answered")

        assert broker.complaints == []
        assert broker.opened_total == 20


async def test_channels_beyond_what_the_broker_allows_are_refused_here(fast: bool) -> None:
    async with StrictBroker(channel_max=2) as broker, connected(broker.url, fast) as connection:
        channels = [await open_channel(connection, confirms=False) for _ in range(2)]

        with pytest.raises(ConnectionLostError, match="all 2 channels of the connection are open"):
            await open_channel(connection, confirms=False)
        await channels[0].aclose()
        await open_channel(connection, confirms=False)

        assert broker.complaints == []
        assert connection.is_open


@pytest.mark.broker
async def test_many_refused_questions_at_once_leave_the_connection_alive(broker: Broker, fast: bool) -> None:
    async with connected(broker.url, fast) as connection:
        for _ in range(5):
            found = await asyncio.gather(*(look(connection, f"nobody.declared.{number}") for number in range(40)))
            assert found == [None] * 40

        assert connection.is_open


@pytest.mark.broker
async def test_busy_channel_that_the_broker_closes_is_lost_alone(broker: Broker, fast: bool) -> None:
    async with connected(broker.url, fast) as connection:
        channel = await open_channel(connection, confirms=True)
        publishes = [channel.publish(parcel("amq.fanout", number)) for number in range(50)]

        publishes.append(channel.publish(parcel("no.such.exchange", 50)))
        for number in range(51, 200):
            # What is still written when the broker's close is on its way.
            publishes.append(channel.publish(parcel("amq.fanout", number)))
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)

        assert "no.such.exchange" in str(outcomes[50])
        await channel.aclose()
        with pytest.raises(UnroutableError):
            # Bound to nothing: the broker says so, over a channel that works.
            await (await open_channel(connection, confirms=True)).publish(parcel("amq.fanout", 0))
        assert connection.is_open
