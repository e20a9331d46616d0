"""The harness as users of the library see it."""

import asyncio
from datetime import timedelta
from typing import Annotated

import pytest

from messaging import ConfigurationError, Context, Depends, Reject, Selection, Service, UnroutableError
from messaging.testing import Harness
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, PlaceOrder

orders = Service("orders")
users = Service("users")


@orders.on_command(PlaceOrder)
async def place_order(command: PlaceOrder, context: Context) -> None:
    if command.number <= 0:
        raise Reject("number must be positive")
    await context.publish(OrderPlaced(number=command.number))


@orders.on_request(CountOrders)
async def count_orders(request: CountOrders, context: Context) -> int:
    return 3


@users.on_event(OrderPlaced)
async def congratulate(event: OrderPlaced, context: Context) -> None:
    if event.number == 13:
        await context.send(CancelOrder(number=event.number))


@orders.on_command(CancelOrder)
async def cancel_order(command: CancelOrder, context: Context) -> None:
    pass


async def test_what_was_sent_published_and_called_is_kept_in_order() -> None:
    async with Harness(orders, users) as h:
        await h.send(PlaceOrder(number=1), sender="users")
        await h.settled()
        await h.send(PlaceOrder(number=13), sender="users")
        await h.settled()

        assert h.sent == [PlaceOrder(number=1), PlaceOrder(number=13), CancelOrder(number=13)]
        assert h.published == [OrderPlaced(number=1), OrderPlaced(number=13)]
        assert h.calls(congratulate) == [OrderPlaced(number=1), OrderPlaced(number=13)]
        assert h.calls(cancel_order) == [CancelOrder(number=13)]
        assert h.dead("orders") == []


async def test_each_harness_begins_afresh() -> None:
    async with Harness(orders, users) as h:
        assert (h.sent, h.published, h.calls(place_order)) == ([], [], [])


async def test_events_come_from_their_owner_unless_told_otherwise() -> None:
    async with Harness(users) as h:
        await h.publish(OrderPlaced(number=1))
        await h.publish(OrderPlaced(number=2), sender="ops:test")
        await h.settled()

        assert h.calls(congratulate) == [OrderPlaced(number=1), OrderPlaced(number=2)]


async def test_requests_are_answered() -> None:
    async with Harness(orders) as h:
        assert await h.request(CountOrders(), sender="users") == 3
        assert await h.request(CountOrders(), sender="users") == 3


async def test_dead_letters_are_opened() -> None:
    async with Harness(orders) as h:
        await h.send(PlaceOrder(number=0), sender="users")
        await h.settled()

        [letter] = h.dead("orders")
        assert (letter.fault.reason, letter.payload) == ("number must be positive", {"number": 0, "note": ""})
        assert len(h.bodies("orders", "dead")) == 1


async def test_a_queue_that_does_not_exist_holds_nothing() -> None:
    async with Harness(users) as h:
        assert h.bodies("nobody", "dead") == []
        assert h.dead("nobody") == []


async def test_the_clock_drives_delays() -> None:
    async with Harness(orders) as h:
        with h.failing(place_order, ConnectionError, times=3):
            await h.send(PlaceOrder(number=1), sender="users")
            await h.settled()
            assert len(h.calls(place_order)) == 2
            await h.advance(1.0)
            assert len(h.calls(place_order)) == 3
            await h.advance(4.9)
            assert len(h.calls(place_order)) == 3
            await h.advance(0.1)

        assert len(h.calls(place_order)) == 4
        assert h.published == [OrderPlaced(number=1)]


async def test_an_advance_passes_rung_after_rung() -> None:
    async with Harness(orders) as h:
        with h.failing(place_order, ConnectionError, times=100):
            await h.send(PlaceOrder(number=1), sender="users")
            await h.advance(3600.0)

        assert len(h.calls(place_order)) == 7
        assert [letter.fault.error for letter in h.dead("orders")] == ["ConnectionError"]


async def test_a_failure_may_be_an_instance_and_ends_with_the_block() -> None:
    async with Harness(orders) as h:
        with h.failing(place_order, Reject("closed"), times=5):
            await h.send(PlaceOrder(number=1), sender="users")
            await h.settled()
        await h.send(PlaceOrder(number=2), sender="users")
        await h.settled()

        assert [letter.fault.reason for letter in h.dead("orders")] == ["closed"]
        assert h.published == [OrderPlaced(number=2)]


async def test_dead_letters_can_be_replayed() -> None:
    async with Harness(orders) as h:
        with h.failing(place_order, Reject("closed"), times=2):
            for number in (1, 2):
                await h.send(PlaceOrder(number=number), sender="users")
            await h.settled()
        first, second = h.dead("orders")

        report = await h.replay("orders", Selection(ids=frozenset({first.id})))
        await h.settled()

        assert report.replayed == 1
        assert h.published == [OrderPlaced(number=1)]
        assert [letter.id for letter in h.dead("orders")] == [second.id]


async def test_a_function_that_handles_nothing_is_refused() -> None:
    async def stranger() -> None:
        """Stand for a function that nobody decorated."""

    async with Harness(orders) as h:
        with pytest.raises(ConfigurationError, match="handles nothing in this harness"):
            h.calls(stranger)
        with pytest.raises(ConfigurationError, match="handles nothing"), h.failing(stranger, ConnectionError):
            raise AssertionError("it is not entered")


async def test_what_nobody_handles_is_unroutable_here_too() -> None:
    async with Harness(users) as h:
        with pytest.raises(UnroutableError):
            await h.send(PlaceOrder(), sender="orders")


async def test_waiting_for_what_never_ends_gives_up() -> None:
    slow = Service("orders")

    @slow.on_command(PlaceOrder)
    async def wait(command: PlaceOrder, context: Context) -> None:
        await gate.wait()

    gate = asyncio.Event()
    async with Harness(slow) as h:
        await h.send(PlaceOrder(), sender="users")
        with pytest.raises(TimeoutError):
            await h.settled(timeout=0.05)
        gate.set()


async def test_the_services_own_settings_are_not_used() -> None:
    elsewhere = Service("orders")

    async with Harness(elsewhere):
        assert elsewhere.health.is_ready
    assert not elsewhere.health.is_ready


class Gateway:
    async def charge(self, number: int) -> None:
        raise AssertionError("a test never charges")


def find_discount() -> int:
    raise AssertionError("a test never asks")


async def test_dependencies_and_resources_are_overridden() -> None:
    charged: list[int] = []

    class Recorder(Gateway):
        async def charge(self, number: int) -> None:
            charged.append(number)

    paying = Service("orders")

    @paying.on_command(PlaceOrder)
    async def pay(
        command: PlaceOrder, context: Context, gateway: Gateway, discount: Annotated[int, Depends(find_discount)]
    ) -> None:
        await gateway.charge(command.number - discount)

    async with Harness(paying, overrides={Gateway: Recorder, find_discount: lambda: 2}) as h:
        await h.send(PlaceOrder(number=5), sender="users")
        await h.settled()

        assert h.calls(pay) == [PlaceOrder(number=5)]
    assert charged == [3]


def test_an_override_that_nobody_depends_on_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no handler of these services depends on .*find_discount"):
        Harness(orders, overrides={find_discount: int})


async def test_a_resource_that_is_not_there_ends_the_start() -> None:
    paying = Service("orders")

    @paying.on_command(PlaceOrder)
    async def pay(command: PlaceOrder, context: Context, gateway: Gateway) -> None:
        await gateway.charge(command.number)

    with pytest.raises(ConfigurationError, match=r"pay: parameter 'gateway' is a Gateway, and there is none"):
        async with Harness(paying):
            raise AssertionError("it does not start")


async def test_what_was_sent_for_later_comes_when_the_clock_gets_there() -> None:
    async with Harness(orders, users) as h:
        began = h.now
        await h.send(PlaceOrder(number=1), sender="users", deliver_at=began + timedelta(hours=1))
        await h.advance(3599)
        early = h.calls(place_order)
        await h.advance(1)

        assert (early, h.calls(place_order)) == ([], [PlaceOrder(number=1)])
        assert h.now - began == timedelta(hours=1)


async def test_an_event_for_later_needs_a_store() -> None:
    async with Harness(orders, users) as h:
        with pytest.raises(ConfigurationError, match="store"):
            await h.publish(OrderPlaced(number=1), deliver_at=h.now + timedelta(hours=1))
