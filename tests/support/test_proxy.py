"""What the proxy does to a link is what tests of links believe it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.amqp_frames import Said
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

WORD = b"word"
# A frame, so that those behind it are found: a heartbeat.
HELLO = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class Far:
    """A server that keeps what it hears, and says what it is told to."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.has_ended = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.met = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.met.set()
        try:
            while data := await reader.read(65_536):
                self.heard += data
        except ConnectionError:
            pass
        finally:
            self.has_ended.set()
            writer.transport.abort()

    def say(self, data: bytes) -> None:
        self.writers[-1].write(data)


@asynccontextmanager
async def link() -> AsyncIterator[tuple[TcpProxy, Far, asyncio.StreamReader, asyncio.StreamWriter]]:
    far = Far()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await far.met.wait()
        # Once something has come all the way, the proxy has both ends in hand.
        far.say(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        try:
            yield proxy, far, reader, writer
        finally:
            writer.transport.abort()


def said(word: Said, body: bytes = b"") -> bytes:
    payload = word.method + body
    return b"\x01\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"


async def test_what_is_delayed_arrives_later_in_either_direction() -> None:
    async with link() as (proxy, far, reader, writer):
        proxy.delay(0.05)
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        writer.write(WORD)
        far.say(WORD)
        answer = await reader.readexactly(len(WORD))
        took_s = loop.time() - began_s

    assert answer == WORD
    assert took_s >= 0.05


async def test_a_throttled_link_takes_its_time_and_loses_nothing() -> None:
    async with link() as (proxy, far, reader, _):
        proxy.throttle(100_000)
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        far.say(bytes(20_000))
        answer = await reader.readexactly(20_000)
        took_s = loop.time() - began_s

    assert answer == bytes(20_000)
    assert took_s >= 0.15


async def test_a_released_link_is_as_fast_as_before() -> None:
    async with link() as (proxy, far, reader, _):
        proxy.throttle(1)
        proxy.delay(3_600)

        proxy.release()
        far.say(bytes(500_000))

        assert await reader.readexactly(500_000) == bytes(500_000)


async def test_after_its_last_answer_the_broker_still_hears_its_client() -> None:
    async with link() as (proxy, far, reader, writer):
        proxy.end_answers()
        end = await reader.read()
        writer.write(WORD)
        far.say(b"nobody hears this")
        await eventually(lambda: bytes(far.heard) == WORD, what="the word got through")

        assert end == b""
        assert not far.has_ended.is_set()


async def test_after_its_clients_last_word_the_broker_is_told() -> None:
    async with link() as (proxy, far, _, writer):
        writer.write(WORD)
        proxy.end_words()
        async with asyncio.timeout(10):
            await far.has_ended.wait()


@pytest.mark.parametrize("size", [1, 5, 1_000])
async def test_everything_is_cut_after_so_many_answers(size: int) -> None:
    words = said(Said.DELIVER, b"x") + said(Said.CONFIRM, b"1") + said(Said.CONFIRM, b"2")
    async with link() as (proxy, far, reader, _):
        cut = proxy.cut_after(Said.CONFIRM, 2)
        both = words + said(Said.CONFIRM, b"3")

        for at in range(0, len(both), size):
            far.say(both[at : at + size])
        async with asyncio.timeout(10):
            await cut.wait()
            with pytest.raises(ConnectionError):
                await reader.readexactly(len(both))


async def test_words_of_the_other_side_are_not_counted() -> None:
    async with link() as (proxy, far, _, writer):
        cut = proxy.cut_after(Said.ACK, 1)

        far.say(said(Said.CONFIRM, b"1"))
        writer.write(b"AMQP\x00\x00\x09\x01")
        writer.write(said(Said.ACK, b"1"))
        async with asyncio.timeout(10):
            await cut.wait()
            await far.has_ended.wait()

        assert bytes(far.heard).startswith(b"AMQP")
