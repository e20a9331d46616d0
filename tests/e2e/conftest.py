"""Landscapes for the end-to-end tests: one on the shared broker, one on a node that may be killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from messaging.cli.broker_node import PrivateNode
from tests.support.broker import Broker
from tests.support.landscape import Landscape, open_landscape


@pytest.fixture
async def landscape(broker: Broker, tmp_path: Path) -> AsyncIterator[Landscape]:
    """Processes on the broker that all tests share."""
    async with open_landscape(broker.url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def fragile_landscape(node: PrivateNode, tmp_path: Path) -> AsyncIterator[Landscape]:
    """Processes on a broker that the test may kill."""
    async with open_landscape(node.url, tmp_path) as opened:
        yield opened
