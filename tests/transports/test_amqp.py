"""The AMQP transport keeps the contract of `messaging.transports.base`, on a real RabbitMQ."""

from collections.abc import AsyncIterator

import pytest

from tests.support.broker import Broker
from tests.transports.amqp_rig import AmqpRig
from tests.transports.conformance import Rig, TransportConformance


@pytest.mark.broker
class TestAmqpTransport(TransportConformance):
    """The whole suite."""

    @pytest.fixture
    async def rig(self, broker: Broker) -> AsyncIterator[Rig]:
        rig = AmqpRig(broker)
        yield rig
        await rig.aclose()
