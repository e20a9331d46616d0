"""Fixtures of the attacks: the arena, what was logged, and the exhibits that are searched for secrets at the end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.arena import Arena
from tests.support.attack_report import numbers_of
from tests.support.databases import database_url, postgres_server, postgres_url
from tests.support.exhibits import Exhibits
from tests.support.logs import Logs

__all__ = ["database_url", "postgres_server", "postgres_url"]

SCAN = 49
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the search for secrets come after everything that could have spilled one."""
    places = [place for place, item in enumerate(items) if HERE in item.path.parents]
    attacks = sorted((items[place] for place in places), key=lambda item: SCAN in numbers_of(item))
    for place, item in zip(places, attacks, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def exhibits() -> Exhibits:
    """Everything said by the program in this session's attacks."""
    return Exhibits()


@pytest.fixture(autouse=True)
def logs(exhibits: Exhibits) -> Iterator[Logs]:
    """What was logged in this test."""
    found = Logs()
    with exhibits.watching(), exhibits.listening(found):
        yield found


@pytest.fixture
async def arena(logs: Logs, exhibits: Exhibits) -> AsyncIterator[Arena]:
    """The realm's services, running."""
    async with Arena() as found:
        yield found
        for run in found.ran:
            exhibits.show(run.context.envelope)
