"""Fixtures that every suite shares."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from messaging.cli.broker_node import PrivateNode
from tests.support.broker import Broker, a_broker, a_node, start_node
from tests.support.tls import TlsNode, a_tls_node

pytest_plugins = ["tests.support.attack_report"]

# Assertions of what suites share explain themselves as those of test files do. Here, before any suite imports them.
pytest.register_assert_rewrite(
    "tests.transports.rig",
    "tests.transports.conformance_delivery",
    "tests.transports.conformance_expiry",
    "tests.transports.conformance_lifecycle",
    "tests.transports.conformance_routing",
    "tests.transports.conformance_settling",
    "tests.transports.conformance_single_active",
)

# A busy machine is no reason to fail: each test has its own time limit anyway. Nor is luck: a run tries what the run
# before it tried. `--hypothesis-profile searching` tries what no run did, as `make fuzz` does.
settings.register_profile("messaging", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", settings.get_profile("messaging"), derandomize=False)
settings.load_profile("messaging")


@pytest.fixture(scope="session", autouse=True)
def _uncached_loggers() -> Iterator[None]:
    """Keep loggers from remembering one test's configuration for all later ones, whatever a program under test asks."""
    configure = structlog.configure

    def uncached(*args: Any, **words: Any) -> None:
        configure(*args, **{**words, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Undo what a test, or a program that it ran in this process, did to the logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real RabbitMQ for the whole session; see tests/support/broker.py."""
    with a_broker() as found:
        yield found


@pytest.fixture(scope="session")
def tls_node() -> Iterator[TlsNode]:
    """A real RabbitMQ that demands client certificates; what a test changes there it changes back."""
    with a_tls_node() as node:
        yield node


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
