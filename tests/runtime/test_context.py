"""What a handler sees, and that what it sends carries the cause on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from messaging import ConfigurationError, Context, Fault, Reject, Service
from messaging.core.envelope import Envelope, Kind
from messaging.runtime.publisher import Publisher
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, PlaceOrder, RenameUser
from tests.support.stage import OPERATOR, Stage


async def test_what_is_sent_while_handling_carries_correlation_and_cause() -> None:
    seen: dict[str, Envelope] = {}
    orders, users = Service("orders"), Service("users")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        seen["command"] = context.envelope
        await context.publish(OrderPlaced())
        assert await context.request(CountOrders()) == 3

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        seen["request"] = context.envelope
        return 3

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        seen["event"] = context.envelope
        await context.send(CancelOrder())

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        seen["second"] = context.envelope

    async with Stage(orders, users) as stage:
        first_id = await stage.send(PlaceOrder(), sender=OPERATOR)
        await stage.settled()

    assert {envelope.correlation_id for envelope in seen.values()} == {first_id}
    assert seen["command"].causation_id is None
    assert seen["event"].causation_id == seen["request"].causation_id == first_id
    assert seen["second"].causation_id == seen["event"].id


async def test_what_follows_from_a_fault_is_caused_by_the_command() -> None:
    seen: list[Context] = []
    orders, users = Service("orders"), Service("users")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("no")

    @users.on_fault(PlaceOrder)
    async def failed(fault: Fault, context: Context) -> None:
        await context.send(RenameUser())

    @users.on_command(RenameUser)
    async def rename(command: RenameUser, context: Context) -> None:
        seen.append(context)

    async with Stage(orders, users) as stage:
        message_id = await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

    assert [(context.correlation_id, context.envelope.causation_id) for context in seen] == [(message_id, message_id)]


async def test_a_message_id_of_ones_own_is_the_id() -> None:
    ids = []
    orders = Service("orders")
    own = [uuid4(), uuid4()]

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        ids.append(context.message_id)
        assert await context.send(CancelOrder(), message_id=own[1]) == own[1]

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        ids.append(context.message_id)

    async with Stage(orders) as stage:
        assert await stage.send(PlaceOrder(), sender="users", message_id=own[0]) == own[0]
        await stage.settled()

    assert ids == own


async def test_a_context_tells_when_and_by_whom() -> None:
    contexts: list[Context] = []
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        contexts.append(context)

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

    [context] = contexts
    assert context.issued_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert (context.sender, context.headers, context.replayed_by) == ("users", {}, None)


class Shelf:
    pass


class Till:
    pass


@pytest.mark.parametrize("several", [True, False])
async def test_what_the_lifespan_yields_is_found_by_its_type(several: bool) -> None:
    shelf, till = Shelf(), Till()
    found: list[object] = []

    @asynccontextmanager
    async def resources(_: Service) -> AsyncIterator[object]:
        yield (till, shelf) if several else shelf

    orders = Service("orders", lifespan=resources)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        found.append(context.resource(Shelf))

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

    assert found == [shelf]


async def test_a_resource_that_nobody_yielded_is_named(publisher: Publisher) -> None:
    context = Context(an_envelope(), publisher, resources=(Till(),))

    with pytest.raises(ConfigurationError, match="no resource of type Shelf"):
        context.resource(Shelf)


async def test_without_a_correlation_the_message_is_its_own(publisher: Publisher) -> None:
    assert Context(an_envelope(), publisher).correlation_id == UUID(int=1)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with Stage() as stage:
        yield await stage._publisher("users")


def an_envelope() -> Envelope:
    return Envelope(
        id=UUID(int=1),
        kind=Kind.COMMAND,
        name="orders.place_order",
        version=1,
        sender="users",
        audience="orders",
        issued_at_ms=1,
        expires_at_ms=2,
        payload=b"",
    )
