import asyncio
from collections.abc import Callable
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.commands import Connection as Method
from pamqp.heartbeat import Heartbeat

from messaging.transports.amqp.channel_numbers import ChannelNumbers, GuardedWriter
from messaging.transports.amqp.splitter import Splitter
from messaging.transports.amqp.wire import HEARTBEAT, METHOD, BrokenFrameError

ACK = pamqp.frame.marshal(Basic.Ack(delivery_tag=1), 7)
OTHERS = pamqp.frame.marshal(Basic.Ack(delivery_tag=1), 8)
START = pamqp.frame.marshal(Heartbeat(), 0)


class FakeLane:
    """Takes acks and bodies, and keeps what it was told."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.severed: list[str] = []
        self.resumed = 0
        self.fault: Exception | None = None

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        if self.fault is not None:
            raise self.fault
        is_ours = kind != METHOD or data[start : start + 4] == b"\x00\x3c\x00\x50"
        if is_ours:
            self.taken.append(data[start - 7 : end + 1])
        return end + 1 if is_ours else 0

    def resume(self) -> None:
        self.resumed += 1

    def sever(self, error: BaseException | None, reason: str) -> None:
        del error
        self.severed.append(reason)


class FakeSocket(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True


class Bench:
    """A splitter with a lane for channel 7."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        self.splitter = Splitter(self.reader)
        self.socket = FakeSocket()
        self.lane = FakeLane()
        self.splitter.connection_made(self.socket)
        self.splitter.register(7, self.lane)

    async def passed_on(self) -> bytes:
        self.reader.feed_eof()
        return await self.reader.read()


async def test_frames_of_the_lane_are_taken_and_the_rest_passes_unchanged() -> None:
    bench = Bench()
    close = pamqp.frame.marshal(Channel.CloseOk(), 7)

    bench.splitter.data_received(START + ACK + OTHERS + close + ACK)

    assert bench.lane.taken == [ACK, ACK]
    assert await bench.passed_on() == START + OTHERS + close + HEARTBEAT


@given(data=st.data())
def test_wherever_the_bytes_are_cut_the_frames_are_the_same(data: st.DataObject) -> None:
    frames = [START, ACK, OTHERS, pamqp.frame.marshal(ContentBody(bytes(300)), 7), ACK, START]
    whole = b"".join(frames)
    cuts = sorted(data.draw(st.sets(st.integers(min_value=1, max_value=len(whole) - 1), max_size=40)))

    async def run() -> tuple[list[bytes], bytes]:
        bench = Bench()
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            bench.splitter.data_received(whole[start:end])
        return bench.lane.taken, (await bench.passed_on()).replace(HEARTBEAT, b"")

    assert asyncio.run(run()) == ([ACK, frames[3], ACK], OTHERS)


async def test_large_frame_in_many_pieces_is_joined_once() -> None:
    bench = Bench()
    frame = pamqp.frame.marshal(ContentBody(bytes(range(252)) * 520), 7)
    pieces = [frame[at : at + 1000] for at in range(0, len(frame), 1000)]

    for piece in pieces[:-1]:
        bench.splitter.data_received(piece)
    # Joined again with each of them, a frame of many pieces would cost its square.
    assert bench.splitter._pieces == pieces[:-1]
    bench.splitter.data_received(pieces[-1])

    assert bench.lane.taken == [frame]


async def test_fast_traffic_shows_a_sign_of_life_once_a_second() -> None:
    bench = Bench()

    for _ in range(50):
        bench.splitter.data_received(ACK)

    assert await bench.passed_on() == HEARTBEAT


@pytest.mark.parametrize(
    "data",
    [
        START + b"\x05" + ACK[1:],
        START + b"\x01\x00\x07\x00\x02\x00\x00",
        ACK[:-1] + b"\x00",
        pamqp.frame.marshal(ContentBody(bytes(131_065)), 7),
    ],
    ids=["kind", "size", "end", "beyond frame_max"],
)
async def test_what_is_no_frame_ends_the_connection(data: bytes) -> None:
    bench = Bench()
    bench.splitter.data_received(data + ACK)

    assert bench.socket.is_aborted
    assert len(bench.lane.severed) == 1
    assert bench.lane.taken == []
    assert isinstance(bench.reader.exception(), BrokenFrameError)


@pytest.mark.parametrize(("agreed", "longest"), [(4_096, 4_096), (1 << 20, 1 << 20), (0, 16 << 20)])
async def test_frames_are_as_long_as_was_agreed_and_without_a_bound_as_the_client_reads_them(
    agreed: int, longest: int
) -> None:
    bench = Bench()

    bench.splitter.agree(agreed)
    bench.splitter.data_received(pamqp.frame.marshal(ContentBody(bytes(longest - 8)), 7))
    assert len(bench.lane.taken) == 1
    bench.splitter.data_received(pamqp.frame.marshal(ContentBody(bytes(longest - 7)), 7))

    assert len(bench.lane.taken) == 1
    assert bench.socket.is_aborted


async def test_lane_that_fails_ends_the_connection_and_raises_nothing() -> None:
    bench = Bench()
    bench.lane.fault = IndexError("beyond the end")

    bench.splitter.data_received(ACK)

    assert bench.socket.is_aborted
    assert "beyond the end" in bench.lane.severed[0]


async def test_foreign_greeting_is_left_to_aiormq() -> None:
    bench = Bench()

    bench.splitter.data_received(b"HTTP/1.1 400 ")
    bench.splitter.data_received(b"Bad Request")

    assert await bench.passed_on() == b"HTTP/1.1 400 Bad Request"
    assert not bench.socket.is_aborted


async def test_nothing_may_be_written_while_blocked() -> None:
    bench = Bench()
    assert bench.splitter.may_write

    bench.splitter.data_received(pamqp.frame.marshal(Method.Blocked("disk"), 0))
    assert not bench.splitter.may_write
    bench.splitter.data_received(pamqp.frame.marshal(Method.Unblocked(), 0))

    assert bench.splitter.may_write
    assert bench.lane.resumed == 1


async def test_nothing_may_be_written_while_the_socket_is_full() -> None:
    bench = Bench()

    bench.splitter.pause_writing()
    assert not bench.splitter.may_write
    bench.splitter.resume_writing()

    assert bench.splitter.may_write
    assert bench.lane.resumed == 1


async def test_close_of_the_connection_ends_all_lanes_with_the_reason() -> None:
    bench = Bench()

    bench.splitter.data_received(pamqp.frame.marshal(Method.Close(501, "FRAME_ERROR", 0, 0), 0))

    assert "FRAME_ERROR" in bench.lane.severed[0]


async def test_lost_connection_ends_all_lanes() -> None:
    bench = Bench()

    bench.splitter.connection_lost(ConnectionResetError("reset"))

    assert bench.lane.severed == ["the connection was lost"]


@pytest.mark.parametrize(
    ("frame", "severed"),
    [
        (pamqp.frame.marshal(Channel.Close(200, "", 0, 0), 7), 1),
        (pamqp.frame.marshal(Channel.CloseOk(), 7), 1),
        (pamqp.frame.marshal(Method.Close(200, "", 0, 0), 0), 1),
        (pamqp.frame.marshal(Channel.Close(200, "", 0, 0), 8), 0),
        (pamqp.frame.marshal(Basic.Qos(), 7), 0),
        (HEARTBEAT, 0),
        (b"AMQP\x00\x00\x09\x01", 0),
    ],
    ids=["close", "close-ok", "connection", "another", "question", "heartbeat", "greeting"],
)
async def test_close_that_aiormq_writes_ends_the_lane_before_it_leaves(frame: bytes, severed: int) -> None:
    bench = Bench()
    written_when_severed: list[int] = []
    sever: Callable[[BaseException | None, str], None] = bench.lane.sever

    def watched(error: BaseException | None, reason: str) -> None:
        written_when_severed.append(len(bench.socket.written))
        sever(error, reason)

    bench.lane.sever = watched  # type: ignore[method-assign]

    numbers = ChannelNumbers()
    for number in (7, 8):
        numbers.may_write(pamqp.frame.marshal(Channel.Open(), number))
    writer = GuardedWriter(
        bench.socket, bench.splitter, bench.reader, numbers=numbers, on_write=bench.splitter.note_written
    )
    writer.write(frame)
    writer.close()

    assert written_when_severed == [0] * severed
    assert bench.socket.written == [frame]


async def test_released_number_may_belong_to_another_lane() -> None:
    bench = Bench()
    successor = FakeLane()

    bench.splitter.register(7, successor)
    bench.splitter.release(7, bench.lane)
    bench.splitter.data_received(ACK)
    bench.splitter.release(7, successor)
    bench.splitter.data_received(ACK)

    assert successor.taken == [ACK]
    assert bench.lane.taken == []


async def test_splitter_without_a_socket_writes_nothing() -> None:
    splitter = Splitter(asyncio.StreamReader(loop=asyncio.get_running_loop()))

    splitter.write(ACK)

    assert not splitter.may_write
    assert not splitter.is_connected
