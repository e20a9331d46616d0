"""A connection without an identity."""

import pytest

from messaging.cli.broker_probe import free_port
from messaging.cli.link import connected
from messaging.errors import ConnectionLostError
from messaging.settings import Settings
from messaging.transports.base import LinkState
from tests.support.broker import Broker


@pytest.mark.broker
async def test_it_is_open_inside_the_block_and_closed_after_it(broker: Broker) -> None:
    async with connected(Settings(broker_url=broker.url), name="test") as transport:
        inside = transport.state.link
    after = transport.state.link

    assert (inside, after) == (LinkState.CONNECTED, LinkState.CLOSED)


async def test_without_a_broker_it_gives_up_in_time() -> None:
    settings = Settings(broker_url=f"amqp://127.0.0.1:{free_port()}/", connect_timeout_s=0.2)

    with pytest.raises(ConnectionLostError):
        async with connected(settings, name="test"):
            pass
