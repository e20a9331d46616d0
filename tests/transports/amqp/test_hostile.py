"""A broker that lies, or somebody between it and us: whatever frames come, one connection ends at worst."""

import asyncio
import contextlib
import struct
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import aiormq
import pamqp.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from messaging.core.sealed import Label, Route
from messaging.errors import ConnectionLostError, PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp import AmqpTransport
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.errors import OutcomeUnknownError
from messaging.transports.amqp.fast import FastChannel
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.splitter import Splitter
from messaging.transports.amqp.wire import ACK, DELIVER, FRAME, METHOD, NACK
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import KEY, Recorder, ack, label, work

NUMBER = 7
FRAME_MAX = 4_096
ROUTE = Route(exchange="ex", routing_key="key")
ENDS = (UnroutableError, PublishNotConfirmedError, OutcomeUnknownError)


class Socket(asyncio.Transport):
    """Goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def pause_reading(self) -> None:
        """A stream reader asks for it when aiormq does not keep up."""

    def resume_reading(self) -> None:
        """As above."""

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Bench:
    """A fast channel with two publishes under way, and whoever speaks for its broker."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.defects: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.defects.append(context))
        self.reader = asyncio.StreamReader()
        self.splitter = Splitter(self.reader)
        self.splitter.agree(FRAME_MAX)
        self.socket = Socket()
        self.splitter.connection_made(self.socket)
        channel = SimpleNamespace(
            number=NUMBER,
            connection=SimpleNamespace(connection_tune=SimpleNamespace(frame_max=FRAME_MAX)),
            closing=self.loop.create_future(),
            consumers={},
            on_consumer_cancel_callbacks=set(),
            is_closed=False,
            basic_publish=None,
        )
        self.channel = FastChannel(cast("aiormq.Channel", channel), self.splitter)
        self.taken: list[Message] = []
        self.channel._on_message = self.taken.append
        self.confirms = [self.channel.publish(parcel(number)) for number in (1, 2)]

    def hear(self, data: bytes, cuts: list[int] = []) -> None:  # noqa: B006 - it is only read
        """Let the socket read, in pieces of these sizes and then the rest."""
        for size in cuts:
            if data[:size]:
                self.splitter.data_received(data[:size])
            data = data[size:]
        if data:
            self.splitter.data_received(data)

    async def judge(self) -> None:
        """Check what must hold whatever came: nothing raised, nothing half done, and an end with a reason."""
        await asyncio.sleep(0)
        for confirm in self.confirms:
            if confirm.done() and (error := confirm.exception()) is not None:
                assert isinstance(error, ENDS)
        if self.socket.is_aborted:
            assert all(confirm.done() for confirm in self.confirms)
            assert self.channel.gone.done()
            assert self.channel.is_closed
            assert isinstance(self.reader.exception(), ConnectionError)
        for message in self.taken:
            assert message.message_id is None or isinstance(message.message_id, str)
            assert message.type is None or isinstance(message.type, str)
            assert len(message.headers) >= 0
        assert self.defects == []
        for confirm in self.confirms:
            confirm.cancel()


def parcel(number: int) -> Parcel:
    label = Label(message_id=f"id-{number}", type="orders.place/1")
    return Parcel.of(b"body", ROUTE, label, new_id=lambda: UUID(int=0))


def frame(kind: int, channel: int, payload: bytes, *, size: int | None = None, end: int = 0xCE) -> bytes:
    return FRAME.pack(kind, channel, len(payload) if size is None else size) + payload + bytes((end,))


def deliver(tag: int = 1) -> bytes:
    names = b"\x02ex\x03key"
    return frame(METHOD, NUMBER, struct.pack(">I4pQB", DELIVER, b"tag", tag, 0) + names)


def confirm(method: int, tag: int, *, multiple: bool = False) -> bytes:
    return frame(METHOD, NUMBER, struct.pack(">IQB", method, tag, multiple))


def header(size: int, **properties: Any) -> bytes:
    return pamqp.frame.marshal(ContentHeader(body_size=size, properties=Basic.Properties(**properties)), NUMBER)


def body(data: bytes) -> bytes:
    return pamqp.frame.marshal(ContentBody(data), NUMBER)


def tell(data: bytes, cuts: list[int]) -> None:
    """Let a broker say this, wherever the network cuts it."""

    async def scene() -> None:
        bench = Bench()
        bench.hear(data, cuts)
        await bench.judge()

    asyncio.run(scene())


_small = st.integers(0, 3)
_short = st.text(max_size=12)
_true_frames = st.one_of(
    st.builds(deliver, st.integers(0, 2**64 - 1)),
    st.builds(header, st.integers(0, 30), message_id=_short, message_type=_short, reply_to=_short),
    st.builds(header, st.sampled_from([0, 1, 5, 2**40, 2**63]), headers=st.dictionaries(_short, st.integers(0, 9))),
    st.builds(body, st.binary(max_size=30)),
    st.builds(confirm, st.sampled_from([ACK, NACK]), _small | st.integers(0, 2**64 - 1), multiple=st.booleans()),
    st.builds(lambda text: pamqp.frame.marshal(Basic.Return(312, text, "ex", "key"), NUMBER), _short),
    st.just(pamqp.frame.marshal(Heartbeat(), 0)),
    st.builds(lambda channel: pamqp.frame.marshal(Basic.Cancel("tag", True), channel), st.integers(0, 9)),
    st.builds(lambda channel: pamqp.frame.marshal(Channel.Close(404, "gone", 60, 40), channel), st.integers(1, 9)),
    st.builds(lambda text: pamqp.frame.marshal(Connection.Blocked(text), 0), _short),
    st.just(pamqp.frame.marshal(Connection.Unblocked(), 0)),
    st.builds(lambda text: pamqp.frame.marshal(Connection.Close(320, text, 0, 0), 0), _short),
)  # fmt: skip
_methods = st.builds(
    lambda numbers, rest: struct.pack(">HH", *numbers) + rest,
    st.sampled_from([(10, 50), (10, 60), (20, 40), (20, 41), (60, 30), (60, 50), (60, 60), (60, 80), (60, 120)]),
    st.binary(max_size=30),
)
_false_frames = st.builds(
    frame,
    st.one_of(st.sampled_from([1, 2, 3, 8]), st.integers(0, 255)),
    st.one_of(st.just(NUMBER), st.integers(0, 65_535)),
    st.one_of(_methods, st.binary(max_size=60)),
    size=st.one_of(st.none(), st.integers(0, 80), st.integers(0, 2**32 - 1)),
    end=st.one_of(st.just(0xCE), st.integers(0, 255)),
)
_cuts = st.lists(st.integers(1, 40), max_size=30)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(min_size=1, max_size=400), cuts=_cuts)
def test_any_bytes_end_the_connection_at_worst(data: bytes, cuts: list[int]) -> None:
    tell(data, cuts)


@settings(deadline=None, max_examples=400)
@given(frames=st.lists(_true_frames, max_size=12), cuts=_cuts)
def test_frames_in_any_order_end_the_connection_at_worst(frames: list[bytes], cuts: list[int]) -> None:
    tell(b"\x08\x00\x00\x00\x00\x00\x00\xce" + b"".join(frames), cuts)


@settings(deadline=None, max_examples=400)
@given(frames=st.lists(st.one_of(_true_frames, _false_frames), max_size=12), cuts=_cuts)
def test_frames_that_lie_end_the_connection_at_worst(frames: list[bytes], cuts: list[int]) -> None:
    tell(b"\x08\x00\x00\x00\x00\x00\x00\xce" + b"".join(frames), cuts)


@pytest.mark.parametrize(
    "data",
    [
        confirm(ACK, 3),
        confirm(NACK, 2**64 - 1, multiple=True),
        frame(1, NUMBER, struct.pack(">HHqB", 60, 80, -1, 0)),
        deliver() + deliver(),
        deliver() + header(3) + body(b"four"),
        deliver() + header(3) + header(3),
        deliver() + body(b"early"),
        deliver() + frame(2, NUMBER, b"\x00\x3c"),
        deliver() + frame(2, NUMBER, struct.pack(">HHQH", 10, 0, 0, 0)),
        frame(1, NUMBER, struct.pack(">HH", 60, 60) + b"\xff"),
        frame(1, NUMBER, b"\x00"),
        frame(3, NUMBER, b"x" * FRAME_MAX),
        frame(1, NUMBER, b"", size=2**32 - 1),
    ],
    ids=[
        "confirm of what was not published", "refusal of all that never was", "negative tag", "two messages at once",
        "body beyond its size", "two headers", "body without header", "cut header", "header of another class",
        "tag beyond the frame", "cut method", "frame beyond the limit", "4 GiB to come",
    ],
)  # fmt: skip
async def test_lie_about_messages_ends_the_connection_with_a_reason(data: bytes) -> None:
    bench = Bench()

    bench.hear(data)

    assert bench.socket.is_aborted
    assert bench.taken == []
    assert all(isinstance(confirm.exception(), OutcomeUnknownError) for confirm in bench.confirms)
    assert bench.channel.gone.result()
    await bench.judge()


async def test_content_without_its_method_is_left_to_aiormq() -> None:
    bench = Bench()

    bench.hear(header(4) + body(b"lost"))

    assert bench.taken == []
    assert not bench.socket.is_aborted
    await bench.judge()


async def test_delivery_after_the_end_of_the_channel_reaches_nobody() -> None:
    bench = Bench()
    bench.channel.sever(None, "closed")

    bench.hear(deliver() + header(4) + body(b"late"))

    assert bench.taken == []
    await bench.judge()


async def test_confirm_that_comes_again_settles_nothing_twice() -> None:
    bench = Bench()
    ack, nack = confirm(ACK, 1), confirm(NACK, 1)

    bench.hear(ack + nack + ack)

    assert bench.confirms[0].exception() is None
    assert not bench.confirms[1].done()
    await bench.judge()


async def test_body_that_never_ends_is_not_kept() -> None:
    bench = Bench()

    bench.hear(deliver() + header(2**62))
    for _ in range(4_000):
        bench.hear(body(b"x" * (FRAME_MAX - 8)))

    kept = sum(len(piece) for piece in bench.channel._assembly._pieces)
    assert kept <= 5 * 1024 * 1024
    await bench.judge()


_HEADERS = ["x-attempt", "x-first-failed", "x-death", "x-delivery-count", "é"]
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(width=32) | st.text(max_size=20)
    | st.binary(max_size=20).map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    headers=st.dictionaries(st.sampled_from(_HEADERS), _values),
    junk=st.binary(max_size=300),
    place=st.integers(0, 400),
)  # fmt: skip
def test_properties_of_a_stranger_are_read_or_not_there(headers: dict[str, Any], junk: bytes, place: int) -> None:
    async def scene() -> None:
        bench = Bench()
        whole = header(4, headers=headers, message_id="id", message_type="type")[7:-1]
        spoilt = whole[:14] + junk if place < 14 else whole[:place] + junk + whole[place + len(junk) :]
        bench.hear(deliver() + frame(2, NUMBER, spoilt) + body(b"body"))
        assert [message.body for message in bench.taken] == [b"body"]
        await bench.judge()

    asyncio.run(scene())


_entries = st.builds(
    lambda name, kind, value: bytes((len(name),)) + name + kind + value,
    st.sampled_from([b"", b"x-attempt", b"\xff\xfe"]),
    st.sampled_from([bytes((letter,)) for letter in b"ABDFILSTVbdfilstux?"]),
    st.one_of(st.binary(max_size=16), st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "big"))),
)


@settings(deadline=None, max_examples=400)
@given(entries=st.lists(_entries, max_size=6), more=st.integers(-4, 4))
def test_tables_of_every_type_are_read_or_not_there(entries: list[bytes], more: int) -> None:
    table = b"".join(entries)

    async def scene() -> None:
        bench = Bench()
        properties = struct.pack(">HHQHI", 60, 0, 4, 1 << 13, max(0, len(table) + more)) + table
        bench.hear(deliver() + frame(2, NUMBER, properties) + body(b"body"))
        assert [message.body for message in bench.taken] == [b"body"]
        await bench.judge()

    asyncio.run(scene())


@pytest.mark.broker
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
async def test_whoever_sits_between_us_and_the_broker_stops_nobody_for_good(rig: AmqpRig, fast: bool) -> None:
    transport = await rig.transport()
    await transport.declare(work(rig.names))
    recorder, proxy = Recorder(settle=ack), rig.proxy_of(transport)
    await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
    lies = [
        b"",
        confirm(ACK, 999).replace(b"\x00\x07", b"\x00\x01", 1) * 3,
        b"".join(frame(METHOD, channel, struct.pack(">IQB", NACK, 2**63, 1)) for channel in range(1, 9)),
        b"".join(frame(2, channel, struct.pack(">HHQH", 60, 0, 2**40, 0)) for channel in range(1, 9)),
        b"".join(frame(METHOD, channel, struct.pack(">I4pQB", DELIVER, b"tag", 1, 0)) for channel in range(1, 9)),
        frame(METHOD, 2_000, b"\x00\x3c\x00\x3c"),
        frame(3, 60_000, b"stray"),
        frame(METHOD, 0, struct.pack(">II", 10 << 16 | 50, 0)),
        frame(METHOD, 1, b"", size=2**32 - 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(range(256)) * 64,
    ]

    for number, lie in enumerate(lies):
        proxy.say(lie)
        again = partial(flows, transport, rig, recorder, number)
        await eventually(again, 30.0, what=f"lie {number} is overcome")

    assert proxy.connections_total < 20 * len(lies)


async def flows(transport: AmqpTransport, rig: AmqpRig, recorder: Recorder, number: int) -> bool:
    """Tell whether a message comes through within a moment."""
    body = f"{number}".encode()
    route = Route(exchange=rig.names.commands, routing_key=KEY)
    with contextlib.suppress(PublishNotConfirmedError, ConnectionLostError):
        await transport.publish(as_sealed(body), route, label(number), timeout_s=1.0)
    await asyncio.sleep(0.05)
    return body in {delivery.body for delivery in recorder.deliveries}
