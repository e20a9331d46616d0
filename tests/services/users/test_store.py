"""The users' tables on SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from services.database import create_tables, open_database
from services.users.contract import RegisterUser, UserNotFound
from services.users.store import UserConflictError, UserStore, metadata

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with open_database(database_url) as engine:
        await create_tables(engine, metadata)
        yield engine


@pytest.fixture
async def store(database: AsyncEngine) -> AsyncIterator[UserStore]:
    async with AsyncSession(database) as session, session.begin():
        yield UserStore(session)


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


async def test_concurrent_repetitions_register_once(database: AsyncEngine, store: UserStore) -> None:
    user = ada()

    async def register() -> None:
        async with AsyncSession(database) as session, session.begin():
            await UserStore(session).register(user, at=NOW)

    await asyncio.gather(*(register() for _ in range(10)))

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
    async with open_database(database_url) as first, AsyncSession(first) as session, session.begin():
        await create_tables(first, metadata)
        await UserStore(session).register(user, at=NOW)

    async with open_database(database_url) as second, AsyncSession(second) as session:
        assert (await UserStore(session).get(user.user_id)).name == user.name
