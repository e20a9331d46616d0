import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.runtime.resources import listed, store_among
from messaging.stores.sql import SqlStore


@pytest.mark.parametrize(
    ("opened", "resources"), [(None, ()), ("one", ("one",)), (("a", "b"), ("a", "b")), (["a"], ("a",))]
)
def test_a_lifespan_yields_nothing_one_or_several(opened: object, resources: tuple[object, ...]) -> None:
    assert listed(opened) == resources


def test_the_store_that_was_given_wins_over_one_among_the_resources() -> None:
    first, second = (SqlStore(create_async_engine("sqlite+aiosqlite://")) for _ in range(2))

    assert store_among(first, [second]) is first
    assert store_among(None, ["other", second]) is second
    assert store_among(None, ["other"]) is None
