"""Fixtures that every suite shares."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from messaging.cli.broker_node import PrivateNode
from tests.support.broker import Broker, a_broker, a_node, start_node

pytest_plugins = ["tests.support.attack_report"]

# A busy machine is no reason to fail: each test has its own time limit anyway.
settings.register_profile("messaging", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("messaging")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real RabbitMQ for the whole session; see tests/support/broker.py."""
    with a_broker() as found:
        yield found


@pytest.fixture(scope="session")
def _victim() -> Iterator[PrivateNode]:
    with a_node("victim") as node:
        yield node


@pytest.fixture
def node(_victim: PrivateNode) -> PrivateNode:
    """A node of one's own that a test may block, kill and start again; it runs when the test begins."""
    if not _victim.is_running:
        start_node(_victim)
    return _victim
