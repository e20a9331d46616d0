import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from messaging.cli.broker_node import free_port
from messaging.errors import ConfigurationError, TopologyConflictError
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.link import Link
from messaging.transports.base import LinkState
from tests.support.ambient import REAL
from tests.support.proxy import TcpProxy
from tests.support.waiting import LIMIT_S, eventually, holds

pytestmark = pytest.mark.broker


@dataclass
class Watched:
    """Makes links, keeps what they did, and closes them."""

    prepared: list[Connection] = field(default_factory=list)
    states: list[LinkState] = field(default_factory=list)
    refusals: list[Exception] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def link(self, nodes: Sequence[Node]) -> Link:
        async def prepare(connection: Connection) -> None:
            self.prepared.append(connection)
            if self.refusals:
                raise self.refusals.pop()

        link = Link(
            "test",
            nodes,
            ambient=REAL,
            connect_timeout_s=10.0,
            heartbeat_s=10,
            prepare=prepare,
            on_change=lambda: self.states.append(link.state),
            fast_path=FastPath(is_on=True),
        )
        self.links.append(link)
        link.start()
        return link


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    for link in watched.links:
        await link.aclose()


async def test_connects_prepares_and_then_lends(near: Node, watched: Watched) -> None:
    link = watched.link([near])

    connection = await link.connected()

    assert watched.prepared == [connection]
    assert link.state is LinkState.CONNECTED
    assert link.problem is None


async def test_takes_the_next_node_when_one_is_down(near: Node, watched: Watched) -> None:
    down = Node(near.url.with_port(free_port()))
    link = watched.link([down, near])

    connection = await asyncio.wait_for(link.connected(), LIMIT_S)

    assert connection.node == near


async def test_lost_connection_is_replaced_by_a_fresh_one(near: Node, proxy: TcpProxy, watched: Watched) -> None:
    link = watched.link([near])
    first = await link.connected()

    proxy.cut()
    await eventually(lambda: link.current is not first and link.state is LinkState.CONNECTED)

    assert watched.prepared == [first, link.current]
    assert watched.states.count(LinkState.CONNECTED) == 2


async def test_says_what_is_wrong_while_there_is_no_broker(near: Node, proxy: TcpProxy, watched: Watched) -> None:
    link = watched.link([near])
    await link.connected()

    proxy.refuse()
    await eventually(lambda: "connection refused" in (link.problem or ""))
    assert link.state is LinkState.CONNECTING

    await proxy.open()
    await asyncio.wait_for(link.connected(), LIMIT_S)
    assert link.problem is None


async def test_refused_credentials_reach_the_one_who_waits(near: Node, watched: Watched) -> None:
    link = watched.link([Node(near.url.with_password("wrong"))])

    with pytest.raises(ConfigurationError):
        await asyncio.wait_for(link.first(), LIMIT_S)

    assert "password" in (link.problem or "")


async def test_refusal_is_retried_slowly_and_shown(near: Node, watched: Watched) -> None:
    watched.refusals = [TopologyConflictError("queue 'q' exists with other arguments")]
    link = watched.link([near])

    await eventually(lambda: link.problem is not None)
    await holds(lambda: len(watched.prepared) == 1 and link.current is None, 1.0)

    assert link.problem == "queue 'q' exists with other arguments"
    assert not watched.prepared[0].is_open


async def test_closed_link_connects_no_more(near: Node, watched: Watched) -> None:
    link = watched.link([near])
    connection = await link.connected()

    await link.aclose()
    await link.aclose()

    assert link.state is LinkState.CLOSED
    assert not connection.is_open
