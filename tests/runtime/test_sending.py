from typing import Any
from uuid import UUID, uuid4

import pytest

from messaging import (
    Command,
    ConfigurationError,
    Context,
    PublishNotConfirmedError,
    Service,
    Settings,
    UnroutableError,
)
from messaging.errors import TransportError
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, PlaceOrder


@pytest.fixture
def settings() -> Settings:
    return Settings.development(request_timeout_s=30.0, drain_timeout_s=30.0)


def an_orders(settings: Settings, handled: list[int] | None = None) -> Service:
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        if handled is not None:
            handled.append(command.number)

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 0

    return orders


async def test_many_commands_are_sent_together_in_order(settings: Settings) -> None:
    handled: list[int] = []

    async with an_orders(settings, handled), Service("users", settings) as users:
        ids = await users.send_many(PlaceOrder(number=number) for number in range(20))
        await users.settled()

    assert len(set(ids)) == 20
    assert sorted(handled) == list(range(20))


async def test_of_many_commands_those_that_failed_are_told_and_the_others_sent(settings: Settings) -> None:
    handled: list[int] = []

    async with an_orders(settings, handled), Service("users", settings) as users:
        with pytest.raises(ExceptionGroup, match="1 of 3 commands were not sent") as caught:
            await users.send_many([PlaceOrder(number=1), CancelOrder(), PlaceOrder(number=2)])
        await users.settled()

    [error] = caught.value.exceptions
    assert isinstance(error, UnroutableError)
    assert sorted(handled) == [1, 2]


async def test_message_id_timeout_and_life_are_the_callers_to_choose(settings: Settings) -> None:
    message_id = uuid4()

    async with an_orders(settings) as orders:
        assert await orders.send(PlaceOrder(), message_id=message_id, timeout=30.0, expires_in=60.0) == message_id
        assert await orders.publish(OrderPlaced(), message_id=message_id) == message_id
        assert await orders.request(CountOrders(), message_id=uuid4()) == 0


class Book(Command, name="orders.book", key="account"):
    account: str
    number: int


def a_bookkeeper(settings: Settings, handled: list[tuple[str, int]]) -> Service:
    orders = Service("orders", settings, partitions=2)

    @orders.on_command(Book)
    async def book(command: Book, context: Context) -> None:
        handled.append((command.account, command.number))

    return orders


async def test_of_many_commands_those_of_a_key_keep_their_order(settings: Settings) -> None:
    handled: list[tuple[str, int]] = []

    async with a_bookkeeper(settings, handled), Service("users", settings) as users:
        ids = await users.send_many(Book(account="abc"[number % 3], number=number) for number in range(30))
        await users.settled()

    assert len(set(ids)) == 30
    for account in "abc":
        assert [number for name, number in handled if name == account] == list(range("abc".index(account), 30, 3))


async def test_after_one_that_failed_no_other_of_its_key_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[tuple[str, int]] = []

    async with a_bookkeeper(settings, handled), Service("users", settings) as users:
        send = users.publisher.send

        async def refuse(command: Book, **words: Any) -> UUID:
            if command.account == "b" and command.number == 1:
                raise PublishNotConfirmedError("refused", message_id=None)
            return await send(command, **words)

        monkeypatch.setattr(users.publisher, "send", refuse)
        with pytest.raises(ExceptionGroup, match="3 of 7 commands were not sent") as caught:
            await users.send_many(Book(account="ab"[number % 2], number=number) for number in range(7))
        await users.settled()

    assert [type(error) for error in caught.value.exceptions] == [
        PublishNotConfirmedError,
        TransportError,
        TransportError,
    ]
    assert "a command before it with the same key failed" in str(caught.value.exceptions[1])
    assert sorted(handled) == [("a", 0), ("a", 2), ("a", 4), ("a", 6)]


async def test_key_may_be_given_with_the_call(settings: Settings) -> None:
    handled: list[tuple[str, int]] = []

    async with a_bookkeeper(settings, handled), Service("users", settings) as users:
        await users.send(Book(account="a", number=1), key="another")
        await users.settled()
        with pytest.raises(ConfigurationError, match=r"PlaceOrder has no key: declare one"):
            await users.send(PlaceOrder(), key="a")

    assert handled == [("a", 1)]
