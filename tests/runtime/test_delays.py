from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from messaging import (
    Command,
    ConfigurationError,
    Context,
    PublishNotConfirmedError,
    RetryPolicy,
    Service,
    UnroutableError,
)
from messaging.core.delays import DELAY_MAX_S
from messaging.errors import TopologyConflictError
from messaging.runtime.delays import Delays
from messaging.security.header import parse_header
from messaging.security.outer import split_parts
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, OrderPlaced, PlaceOrder
from tests.support.stage import Stage

DAY_S = 24 * 3600


class World:
    """Orders, and users who send it commands for later; nobody has a store."""

    def __init__(self) -> None:
        self.orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=(1.0,)))
        self.users = Service("users")
        self.handled: list[tuple[UUID, datetime, int]] = []
        self.orders.on_command(PlaceOrder)(self.place_order)
        self.orders.on_command(CancelOrder)(self.cancel_order)
        self.stage = Stage(self.orders, self.users)

    async def place_order(self, command: PlaceOrder, context: Context) -> None:
        self.handled.append((context.message_id, self.stage.now, context.attempt))
        if command.number < 0 and context.attempt == 1:
            raise ConnectionError

    async def cancel_order(self, command: CancelOrder, context: Context) -> None:
        await context.send(PlaceOrder(), deliver_at=self.stage.now + timedelta(seconds=3))

    def bare(self, *, makes_levels: bool = False) -> Delays:
        """Return delays as on a broker where levels must be made beforehand."""
        publisher = self.users.publisher
        publisher.later = Delays(
            seal=publisher.sealed,
            transport=publisher._transport,
            names=self.stage.names,
            ambient=self.stage.clock.ambient,
            lifetime_s=7 * DAY_S,
            longest_life_ms=lambda: 7 * DAY_S * 1000,
            makes_levels=makes_levels,
        )
        return publisher.later


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("delay_s", [0.001, 1, 1.5, 2, 5, 77, 3600, 2 * DAY_S + 12_345])
async def test_a_command_comes_at_its_time_rounded_up_to_seconds(world: World, delay_s: float) -> None:
    async with world.stage as stage:
        began = stage.now
        message_id = await world.users.send(PlaceOrder(), deliver_at=began + timedelta(seconds=delay_s))
        await stage.advance(delay_s - 0.001)
        early = list(world.handled)
        await stage.advance(1.001)

    whole_s = -(-delay_s // 1)
    assert early == []
    assert world.handled == [(message_id, began + timedelta(seconds=whole_s), 1)]


async def test_a_handler_may_send_for_later_too(world: World) -> None:
    async with world.stage as stage:
        await stage.send(CancelOrder(), sender="users")
        await stage.advance(4)

    assert len(world.handled) == 1


async def test_it_is_retried_like_any_other_when_it_has_come(world: World) -> None:
    async with world.stage as stage:
        await world.users.send(PlaceOrder(number=-1), deliver_at=stage.now + timedelta(seconds=3))
        await stage.advance(10)

    assert [attempt for _, _, attempt in world.handled] == [1, 2]


@pytest.mark.parametrize(
    ("delay_s", "expires_in", "life_s"),
    [
        (3, 60, 63),
        (3, None, 7 * DAY_S),
        (6 * DAY_S, None, 7 * DAY_S),
        (7 * DAY_S - 3600, None, 7 * DAY_S),
        (7 * DAY_S - 30, 30, 7 * DAY_S),
    ],
)
async def test_its_life_covers_the_delay_and_its_own(
    world: World, delay_s: int, expires_in: float | None, life_s: int
) -> None:
    async with world.stage as stage:
        await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=delay_s), expires_in=expires_in)
        [body] = [body for level in range(20) for body in stage.bodies("orders", f"delay.{level:02}")]
        header = parse_header(split_parts(body).header, names=stage.names, suites=frozenset({1}))
        await stage.advance(delay_s)

    assert header.exp - header.iat == life_s * 1000
    assert len(world.handled) == 1


@pytest.mark.parametrize(
    ("delay_s", "expires_in"), [(7 * DAY_S - 3599, None), (3, 7 * DAY_S - 1), (DAY_S, 6.5 * DAY_S)]
)
async def test_what_would_outlive_the_bundles_bound_is_refused(
    world: World, delay_s: int, expires_in: float | None
) -> None:
    async with world.stage as stage:
        with pytest.raises(ConfigurationError, match=r"\(max_lifetime_s\): choose an earlier time .* or give the"):
            await world.users.send(
                PlaceOrder(), deliver_at=stage.now + timedelta(seconds=delay_s), expires_in=expires_in
            )


async def test_what_the_levels_do_not_reach_is_refused(world: World) -> None:
    async with world.stage as stage:
        with pytest.raises(ConfigurationError, match="which reach 1048575 s"):
            await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=DELAY_MAX_S + 1))


async def test_without_levels_the_error_names_what_makes_them(world: World) -> None:
    async with world.stage as stage:
        world.bare()
        with pytest.raises(
            TopologyConflictError, match=r"'orders' has no delay levels. Run `messaging topology apply --delays`"
        ):
            await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=3))


async def test_levels_that_vanish_are_looked_for_again(world: World) -> None:
    async with world.stage as stage:
        await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=1))
        delays = world.bare()
        await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=1))
        stage.broker._exchanges.pop(stage.names.delay("orders"))
        with pytest.raises(TopologyConflictError, match="no exchange"):
            await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=1))

        assert delays._found == set()


async def test_on_the_embedded_broker_nobody_waits_for_a_service_that_does_not_run() -> None:
    users = Service("users")
    async with Stage(users) as stage:
        stage.trust.join("orders")
        with pytest.raises(UnroutableError, match=r"nobody handles orders\.place_order/1"):
            await users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=3))


class Pay(Command, name="orders.pay", key="order"):
    order: str


async def test_a_command_with_a_key_gets_into_its_partition_when_it_has_come() -> None:
    orders, users = Service("orders", partitions=4), Service("users")
    paid: list[str] = []

    @orders.on_command(Pay)
    async def pay(command: Pay, context: Context) -> None:
        paid.append(command.order)

    async with Stage(orders, users) as stage:
        for order in ("a", "b", "c"):
            await users.send(Pay(order=order), deliver_at=stage.now + timedelta(seconds=3))
        await stage.advance(3)

        assert sorted(paid) == ["a", "b", "c"]
        assert orders.health.details["counts"] == {"moved": 3, "handled": 3}


async def test_an_event_needs_a_store_or_a_command_that_publishes_it(world: World) -> None:
    async with world.stage as stage:
        with pytest.raises(ConfigurationError, match=r"give the service a store, .* or send yourself a command"):
            await world.orders.publish(OrderPlaced(), deliver_at=stage.now + timedelta(seconds=3))


async def test_what_waits_at_the_broker_cannot_be_taken_back(world: World) -> None:
    async with world.stage as stage:
        message_id = await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=3))
        with pytest.raises(ConfigurationError, match=r"this service has no store, .* give it one, Service\(…, store="):
            await world.users.cancel(message_id)
        await stage.advance(3)

    assert len(world.handled) == 1


async def test_a_queue_that_is_gone_leads_to_the_dead_letters(world: World) -> None:
    async with world.stage as stage:
        await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=3))
        stage.broker.delete(stage.names.queue("orders", "commands"))
        await stage.advance(3)

        [letter] = stage.dead("orders")
        assert letter.message_name == "orders.place_order"


async def test_a_broker_that_does_not_answer_ends_the_call_at_its_deadline(world: World) -> None:
    message_id = uuid4()
    async with world.stage as stage:
        await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=1))
        async with stage.broker.stalled():
            with pytest.raises(PublishNotConfirmedError) as caught:
                await world.users.send(
                    PlaceOrder(), message_id=message_id, deliver_at=stage.now + timedelta(seconds=1), timeout=0.05
                )

    assert caught.value.message_id == message_id


async def test_it_is_told_in_the_log_and_to_the_harness(world: World, logs: Logs) -> None:
    async with world.stage as stage:
        message_id = await world.users.send(PlaceOrder(), deliver_at=stage.now + timedelta(seconds=2.5))

        assert stage.sent == [PlaceOrder()]
    [entry] = logs.of("message.delayed")
    assert (entry["message_id"], entry["delay_s"]) == (str(message_id), 3)
