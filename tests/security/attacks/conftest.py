"""Fixtures of the attacks: the arena, what was logged, and the exhibits in which secrets are searched for at the end."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.support.arena import Arena
from tests.support.attack_report import numbers_of
from tests.support.exhibits import Exhibits
from tests.support.logs import Logs

SCAN = 49


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the search for secrets come after everything that could have spilled one."""
    items.sort(key=lambda item: SCAN in numbers_of(item))


@pytest.fixture(scope="session")
def exhibits() -> Iterator[Exhibits]:
    """Everything said by the program in this session's attacks."""
    found = Exhibits()
    with found.watching():
        yield found


@pytest.fixture(autouse=True)
def logs(exhibits: Exhibits) -> Iterator[Logs]:
    """What was logged in this test."""
    with ExitStack() as stack:
        found = Logs()
        stack.enter_context(exhibits.listening(found))
        yield found


@pytest.fixture
async def arena(exhibits: Exhibits) -> AsyncIterator[Arena]:
    """The realm's services, running."""
    async with Arena() as found:
        yield found
        for run in found.ran:
            exhibits.show(run.context.envelope)
