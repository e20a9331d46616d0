"""The users' tables on SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.users.contract import RegisterUser, UserNotFound
from services.users.store import UserConflictError, UserStore

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[UserStore]:
    async with UserStore.open(database_url) as opened:
        yield opened


def ada() -> RegisterUser:
    return RegisterUser(user_id=uuid4(), name="Ada Lovelace", email="ada@example.org")


async def test_a_registered_user_is_found(store: UserStore) -> None:
    user = ada()

    await store.register(user, at=NOW)

    view = await store.get(user.user_id)
    assert (view.user_id, view.name, view.email) == (user.user_id, user.name, user.email)
    assert view.registered_at == NOW
    assert view.orders_placed == 0


async def test_an_unknown_user_is_a_typed_failure(store: UserStore) -> None:
    user_id = uuid4()

    with pytest.raises(UserNotFound) as caught:
        await store.get(user_id)

    assert caught.value.user_id == user_id


async def test_the_same_user_again_changes_nothing(store: UserStore) -> None:
    user = ada()
    await store.register(user, at=NOW)

    await store.register(user, at=NOW + timedelta(days=1))

    assert (await store.get(user.user_id)).registered_at == NOW


async def test_another_user_under_the_same_id_is_a_conflict(store: UserStore) -> None:
    user = ada()
    await store.register(user, at=NOW)

    with pytest.raises(UserConflictError, match=str(user.user_id)):
        await store.register(user.model_copy(update={"email": "eve@example.org"}), at=NOW)

    assert (await store.get(user.user_id)).email == user.email


async def test_concurrent_repetitions_register_once(store: UserStore) -> None:
    user = ada()

    await asyncio.gather(*(store.register(user, at=NOW) for _ in range(10)))

    assert (await store.get(user.user_id)).name == user.name


async def test_an_order_counts_once_and_for_its_user_only(store: UserStore) -> None:
    one, other = ada(), ada()
    await store.register(one, at=NOW)
    await store.register(other, at=NOW)
    order_id = uuid4()

    for _ in range(2):
        await store.count_order(order_id=order_id, user_id=one.user_id)

    assert (await store.get(one.user_id)).orders_placed == 1
    assert (await store.get(other.user_id)).orders_placed == 0


async def test_users_survive_a_restart(database_url: str) -> None:
    user = ada()
    async with UserStore.open(database_url) as first:
        await first.register(user, at=NOW)

    async with UserStore.open(database_url) as second:
        assert (await second.get(user.user_id)).name == user.name
