"""Fixtures of the runtime's tests."""

from collections.abc import Iterator

import pytest

from tests.support.logs import Logs, captured_logs


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    """What was logged."""
    with captured_logs() as found:
        yield found
