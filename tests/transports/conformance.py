"""The contract of `messaging.transports.base` as one suite: every transport passes all of it.

A transport's own test file only supplies a `Rig`:

    class TestMemoryTransport(TransportConformance):
        @pytest.fixture
        async def rig(self) -> AsyncIterator[Rig]:
            ...

Every case runs in real time with short delays, so that it says the same of a broker in process and of RabbitMQ.
"""

from tests.transports.conformance_delivery import DeliveryCases
from tests.transports.conformance_expiry import ExpiryCases
from tests.transports.conformance_lifecycle import LifecycleCases
from tests.transports.conformance_routing import RoutingCases
from tests.transports.conformance_settling import SettlingCases
from tests.transports.conformance_single_active import SingleActiveCases
from tests.transports.rig import Recorder, Rig

__all__ = ["Recorder", "Rig", "TransportConformance"]


class TransportConformance(RoutingCases, DeliveryCases, SettlingCases, SingleActiveCases, ExpiryCases, LifecycleCases):
    """All cases. Subclass it with a `rig` fixture."""
