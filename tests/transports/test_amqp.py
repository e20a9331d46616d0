"""The AMQP transport keeps the contract of `messaging.transports.base`, on a real RabbitMQ and on both of its paths."""

from collections.abc import AsyncIterator

import pytest

from tests.support.broker import Broker
from tests.transports.amqp_rig import AmqpRig
from tests.transports.conformance import Rig, TransportConformance


@pytest.mark.broker
class TestFastAmqpTransport(TransportConformance):
    """The whole suite, with channels that handle the frames of messages themselves."""

    @pytest.fixture
    async def rig(self, broker: Broker) -> AsyncIterator[Rig]:
        rig = AmqpRig(broker, fast=True)
        yield rig
        await rig.aclose()


@pytest.mark.broker
class TestPlainAmqpTransport(TransportConformance):
    """The whole suite, with channels that leave them to the client library."""

    @pytest.fixture
    async def rig(self, broker: Broker) -> AsyncIterator[Rig]:
        rig = AmqpRig(broker, fast=False)
        yield rig
        await rig.aclose()
