"""The port of failed runs: which of the shipped stores have them, and that those keep its shape."""

import inspect

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.ambient import real_ambient
from messaging.stores.failed_runs import FailedRuns, RemembersRuns
from messaging.stores.memory import MemoryInbox
from messaging.stores.sql import SqlStore
from messaging.stores.sql.failed_runs import SqlFailedRuns


def test_a_durable_store_remembers_runs_and_memory_does_not() -> None:
    assert isinstance(SqlStore(create_async_engine("sqlite+aiosqlite://")), RemembersRuns)
    assert not isinstance(MemoryInbox(ambient=real_ambient()), RemembersRuns)


@pytest.mark.parametrize("name", ["note", "of"])
def test_the_durable_one_keeps_the_port(name: str) -> None:
    assert inspect.signature(getattr(SqlFailedRuns, name)) == inspect.signature(getattr(FailedRuns, name))
