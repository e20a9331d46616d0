"""What may be said of a delivery while it is under way."""

from messaging import Context, Service
from messaging.core.envelope import Kind
from messaging.runtime.handling import Handling, Part
from tests.support.logs import Logs
from tests.support.shop import PlaceOrder
from tests.support.stage import OPERATOR, Stage


def test_each_queue_carries_its_own_kinds() -> None:
    assert {part.word: part.kinds for part in Part} == {
        "commands": {Kind.COMMAND, Kind.REPLAY},
        "events": {Kind.EVENT, Kind.REPLAY},
        "requests": {Kind.REQUEST},
        "faults": {Kind.FAULT},
    }


async def test_of_what_was_not_verified_logs_name_the_queue_alone(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        assert orders._engine is not None
        seen: list[Handling] = []
        process = orders._engine._consumer.process

        async def look(handling: Handling) -> object:
            seen.append(handling)
            return await process(handling)

        orders._engine._consumer.process = look  # type: ignore[method-assign, assignment]
        stage.inject("orders", "commands", b"junk")
        await stage.settled()

    [handling] = seen
    assert handling.described() == {"queue": "messaging.orders.commands"}


async def test_logs_describe_what_was_verified(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        message_id = await stage.send(PlaceOrder(note="secret"), sender=OPERATOR)
        await stage.settled()

    [entry] = logs.of("delivery.handled")
    assert entry == {
        "event": "delivery.handled",
        "log_level": "debug",
        "queue": "messaging.orders.commands",
        "kind": "command",
        "message_name": "orders.place_order",
        "message_id": str(message_id),
        "sender": OPERATOR,
        "correlation_id": str(message_id),
        "attempt": 1,
    }
