"""The users service on a fixed clock: commands, requests and events, with real sealing and a real database."""

from pathlib import Path
from uuid import uuid4

import pytest

from messaging import Service
from messaging.testing import Harness
from services.orders.contract import OrderPlaced
from services.users.contract import GetUser, RegisterUser, UserNotFound, UserRegistered
from services.users.handlers import register_user
from services.users.service import create
from services.users.settings import UsersSettings


@pytest.fixture
def users(tmp_path: Path) -> Service:
    return create(own=UsersSettings(database_url=f"sqlite:///{tmp_path / 'users.db'}"))


def ada() -> RegisterUser:
    return RegisterUser(user_id=uuid4(), name="Ada Lovelace", email="ada@example.org")


async def test_a_registered_user_is_told_to_everybody_and_found(users: Service) -> None:
    command = ada()

    async with Harness(users, Service("orders"), Service("gateway")) as h:
        await h.send(command, sender="gateway")
        await h.settled()
        view = await h.request(GetUser(user_id=command.user_id), sender="orders")

        assert h.published == [UserRegistered(user_id=command.user_id, name="Ada Lovelace")]
        assert h.dead("users") == []

    assert (view.name, view.email, view.orders_placed) == ("Ada Lovelace", "ada@example.org", 0)


async def test_an_unknown_user_is_a_typed_failure_at_the_caller(users: Service) -> None:
    user_id = uuid4()

    async with Harness(users, Service("orders")) as h:
        with pytest.raises(UserNotFound) as caught:
            await h.request(GetUser(user_id=user_id), sender="orders")

    assert caught.value.user_id == user_id


async def test_the_same_command_sent_twice_is_harmless(users: Service) -> None:
    command = ada()

    async with Harness(users, Service("gateway")) as h:
        for _ in range(2):
            await h.send(command, sender="gateway")
        await h.settled()

        assert h.calls(register_user) == [command, command]
        assert h.dead("users") == []


async def test_another_user_under_the_same_id_is_rejected_at_once(users: Service) -> None:
    command = ada()

    async with Harness(users, Service("gateway")) as h:
        await h.send(command, sender="gateway")
        await h.settled()
        await h.send(command.model_copy(update={"email": "eve@example.org"}), sender="gateway")
        await h.settled()
        (letter,) = h.dead("users")
        view = await h.request(GetUser(user_id=command.user_id), sender="gateway")

    assert letter.fault.attempts == 1
    assert "registered with another name or e-mail address" in letter.fault.reason
    assert "eve" not in letter.fault.reason
    assert view.email == "ada@example.org"


async def test_a_passing_failure_is_retried_until_it_succeeds(users: Service) -> None:
    command = ada()

    async with Harness(users, Service("gateway")) as h:
        with h.failing(register_user, ConnectionError, times=3):
            await h.send(command, sender="gateway")
            await h.advance(10.0)

        assert len(h.calls(register_user)) == 4
        assert h.published == [UserRegistered(user_id=command.user_id, name="Ada Lovelace")]
        assert h.dead("users") == []


async def test_an_order_heard_twice_counts_once(users: Service) -> None:
    command = ada()
    event = OrderPlaced(order_id=uuid4(), user_id=command.user_id, item="Darjeeling", total_cents=1250)

    async with Harness(users, Service("orders"), Service("gateway")) as h:
        await h.send(command, sender="gateway")
        for _ in range(2):
            await h.publish(event)
        await h.settled()
        view = await h.request(GetUser(user_id=command.user_id), sender="gateway")

    assert view.orders_placed == 1
