import asyncio

import pytest

from messaging.cli.broker_node import free_port
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.transports.amqp import splitter
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from tests.support.broker import Broker
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.broker

# What takes two seconds at most ends in these, even on a machine that stands still meanwhile.
BOUND_S = 20.0


async def opened(node: Node, *, timeout_s: float = 30.0, heartbeat_s: int = 10) -> Connection:
    return await Connection.open(node, name="test", heartbeat_s=heartbeat_s, timeout_s=timeout_s)


async def test_open_connection_lends_channels(near: Node) -> None:
    connection = await opened(near)

    async with connection.throwaway() as channel:
        declared = await channel.queue_declare("", exclusive=True)

    assert connection.is_open
    assert declared.queue
    await connection.aclose()
    assert not connection.is_open
    assert connection.lost.done()


async def test_channels_that_take_no_fast_path_read_frames_as_long_as_agreed(
    near: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the broker had agreed to more than is usual.
    monkeypatch.setattr(splitter, "_FRAME_MAX", 32_768)
    connection = await Connection.open(
        near, name="test", heartbeat_s=10, timeout_s=10.0, fast_path=FastPath(is_on=True)
    )

    async with connection.throwaway() as channel:
        declared = await channel.queue_declare("", exclusive=True)
        await channel.basic_publish(b"l" * 100_000, routing_key=declared.queue or "")
        found = await channel.basic_get(declared.queue or "", no_ack=True)

    assert found.body == b"l" * 100_000
    assert connection.is_open
    await connection.aclose()


async def test_wrong_password_is_told_with_its_remedy_and_never_shown(near: Node) -> None:
    wrong = Node(near.url.with_password("s3cret-but-wrong"))

    with pytest.raises(ConfigurationError, match="user and password in MESSAGING_BROKER_URL") as caught:
        await opened(wrong)

    assert "s3cret" not in str(caught.value)
    assert near.address in str(caught.value)


async def test_missing_virtual_host_is_told_with_its_remedy(near: Node) -> None:
    wrong = Node(near.url.with_path("/nowhere"))

    with pytest.raises(ConfigurationError, match=r"no virtual host 'nowhere'.*add_vhost"):
        await opened(wrong)


async def test_closed_port_is_told_with_its_remedy(broker: Broker) -> None:
    closed = Node(Node.parse(broker.url).url.with_host("127.0.0.1").with_port(free_port()))

    with pytest.raises(ConnectionLostError, match=r"connection refused.*messaging broker up"):
        await opened(closed)


async def test_port_that_speaks_something_else_is_told(near: Node) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        stranger = Node(near.url.with_port(server.sockets[0].getsockname()[1]))

        with pytest.raises(ConnectionLostError, match="no broker at"):
            await opened(stranger)


async def test_silent_port_is_given_up_in_time(near: Node, proxy: TcpProxy) -> None:
    proxy.hold()

    with pytest.raises(ConnectionLostError, match="no answer in time"):
        await asyncio.wait_for(opened(near, timeout_s=0.3), BOUND_S)


async def test_cut_connection_is_noticed_at_once(near: Node, proxy: TcpProxy) -> None:
    connection = await opened(near)

    proxy.cut()

    await eventually(connection.lost.done)
    assert not connection.is_open
    assert connection.reason
    with pytest.raises(ConnectionLostError):
        await connection.open_channel(confirms=True)
    await connection.aclose()


async def test_closing_is_bounded_when_the_broker_is_silent(near: Node, proxy: TcpProxy) -> None:
    # A heartbeat that is missing would end the wait too.
    connection = await opened(near, heartbeat_s=600)
    proxy.hold()

    await asyncio.wait_for(connection.aclose(), BOUND_S)

    assert not connection.is_open


async def test_refused_question_leaves_the_connection_alive(near: Node) -> None:
    connection = await opened(near)

    for _ in range(5):
        async with connection.throwaway() as channel:
            with pytest.raises(Exception, match="NOT_FOUND"):
                await channel.queue_declare("nobody.declared.this", passive=True)

    assert connection.is_open
    await connection.aclose()
