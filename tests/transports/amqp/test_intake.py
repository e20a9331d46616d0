import pytest

from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.intake import Intake
from tests.support.waiting import eventually
from tests.transports.amqp_rig import AmqpRig

pytestmark = pytest.mark.broker


async def test_starts_hands_over_and_stops(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await connection.open_channel(confirms=False)
    arrived: list[Message] = []
    intake = Intake(channel, lambda _: None)
    assert not intake.is_known

    await intake.start(queue, arrived.append, prefetch=5, tag="t1")
    assert intake.is_known
    await rig.inject(rig.names.commands, "orders.place_order.v1", b"x")
    await eventually(lambda: len(arrived) == 1)
    await intake.round_trip()
    await intake.stop()
    await intake.stop()

    assert not intake.is_known
    assert arrived[0].body == b"x"


async def test_end_by_the_broker_is_told(connection: Connection, rig: AmqpRig, queue: str) -> None:
    channel = await connection.open_channel(confirms=False)
    reasons: list[str] = []
    intake = Intake(channel, reasons.append)
    await intake.start(queue, lambda _: None, prefetch=5, tag="t1")

    async with rig.foreigner() as other:
        await other.queue_delete(queue)

    await eventually(lambda: bool(reasons))
    assert "the broker cancelled the consumer" in reasons[0]
    assert not intake.is_known
