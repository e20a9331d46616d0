import asyncio

import pamqp.commands
import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from messaging.transports.amqp.channel_numbers import ChannelNumbers
from messaging.transports.amqp.errors import Refusal
from messaging.transports.amqp.frames import FrameReader

BASIC = pamqp.commands.Basic


class Reading:
    """A reader that is fed by hand and read as aiormq reads it."""

    def __init__(self) -> None:
        self.blocked: list[str | None] = []
        self.numbers = ChannelNumbers()
        self.reader = FrameReader(self.blocked.append, self.numbers)

    async def through(self, data: bytes) -> bytes:
        self.reader.feed_data(data)
        head = await self.reader.readexactly(1) + await self.reader.readexactly(6)
        return head + await self.reader.readexactly(int.from_bytes(head[3:7], "big") + 1)


@pytest.mark.parametrize(
    "data",
    [
        pamqp.frame.marshal(Heartbeat(), 0),
        pamqp.frame.marshal(BASIC.Ack(delivery_tag=2**40), 7),
        pamqp.frame.marshal(ContentHeader(body_size=5, properties=BASIC.Properties(message_id="é" * 100)), 7),
        pamqp.frame.marshal(ContentBody(b"\xff\xce\x00"), 7),
        pamqp.frame.marshal(BASIC.Deliver("tag", 2**40, False, "ex", "grüße"), 7),
        pamqp.frame.marshal(pamqp.commands.Connection.OpenOk(), 0),
    ],
    ids=["heartbeat", "ack", "properties", "body", "deliver", "method"],
)
async def test_frames_that_can_be_read_pass_unchanged(data: bytes) -> None:
    reading = Reading()

    assert await reading.through(data) == data
    assert await reading.through(data) == data


async def test_reason_of_a_closed_connection_is_kept() -> None:
    reading = Reading()
    close = pamqp.commands.Connection.Close(530, "NOT_ALLOWED - vhost x not found", 0, 0)

    await reading.through(pamqp.frame.marshal(close, 0))

    assert reading.reader.refusal == Refusal(530, "NOT_ALLOWED - vhost x not found")


async def test_blocking_is_told_with_its_reason_and_its_end() -> None:
    reading = Reading()

    await reading.through(pamqp.frame.marshal(pamqp.commands.Connection.Blocked("low on memory"), 0))
    await reading.through(pamqp.frame.marshal(pamqp.commands.Connection.Unblocked(), 0))

    assert reading.blocked == ["low on memory", None]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b"secret-id", b"\xff\xfe\xfd\xfc-id--"),
        lambda data: data.replace(b"some-key", b"\xc3\xc3\xc3\xc3-key"),
        lambda data: data.replace(b"tS\x00\x00\x00\x05value", b"t?\x00\x00\x00\x05value"),
        lambda data: data[:-4] + b"\xff\xff\xff\xce",
    ],
    ids=["invalid UTF-8", "invalid UTF-8 in a key", "unknown type", "cut"],
)
async def test_properties_that_cannot_be_read_are_dropped_and_the_size_stays(spoil: object) -> None:
    assert callable(spoil)
    properties = BASIC.Properties(message_id="secret-id", headers={"some-key": 1, "t": "value"})
    data = spoil(pamqp.frame.marshal(ContentHeader(body_size=77, properties=properties), 7))

    passed = await Reading().through(data)

    consumed, channel, frame = pamqp.frame.unmarshal(passed)
    assert isinstance(frame, ContentHeader)
    assert (consumed, channel, frame.body_size) == (len(data), 7, 77)


async def test_invalid_utf8_in_properties_leaves_none() -> None:
    data = pamqp.frame.marshal(ContentHeader(body_size=1, properties=BASIC.Properties(message_id="spoiled")), 7)

    _, _, frame = pamqp.frame.unmarshal(
        await Reading().through(data.replace(b"spoiled", b"\xff\xff\xff\xff\xff\xff\xff"))
    )

    assert isinstance(frame, ContentHeader)
    assert frame.properties.message_id is None


async def test_routing_key_that_is_no_text_is_mended() -> None:
    data = pamqp.frame.marshal(BASIC.Deliver("tag", 2**40, True, "ex", "dead.orders.xx"), 7)

    _, _, frame = pamqp.frame.unmarshal(await Reading().through(data.replace(b"xx", b"\xff\xfe")))

    assert isinstance(frame, BASIC.Deliver)
    assert (frame.consumer_tag, frame.delivery_tag, frame.redelivered) == ("tag", 2**40, True)
    assert (frame.exchange, frame.routing_key) == ("ex", "dead.orders.??")


async def test_end_of_the_stream_is_told_as_ever() -> None:
    reading = Reading()
    reading.reader.feed_eof()

    with pytest.raises(asyncio.IncompleteReadError):
        await reading.reader.readexactly(1)


async def test_properties_that_would_take_too_long_are_emptied() -> None:
    reading = Reading()
    properties = BASIC.Properties(message_id="id", headers={f"key-{number}": number for number in range(5_000)})
    frame = pamqp.frame.marshal(ContentHeader(body_size=5, properties=properties), 7)

    _, _, header = pamqp.frame.unmarshal(await reading.through(frame))

    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties.message_id, header.properties.headers) == (5, None, None)


async def test_frame_of_a_size_that_no_broker_has_is_not_waited_for() -> None:
    reading = Reading()

    with pytest.raises(asyncio.IncompleteReadError):
        await reading.through(b"\x03\x00\x01\xff\xff\xff\xff")
