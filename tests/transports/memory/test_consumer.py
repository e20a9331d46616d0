import asyncio

import pytest

from messaging.core.topology import Names
from messaging.testing.clock import FixedClock
from messaging.transports.base import Delivery
from messaging.transports.memory.broker import MemoryBroker
from messaging.transports.memory.consumer import HAND_OVER_MAX, headers_of
from messaging.transports.memory.transport import MemoryTransport
from tests.transports.rig import KEY, Recorder, ack, work

NAMES = Names("t")
COMMANDS = NAMES.queue("orders", "commands")


@pytest.fixture
async def transport() -> MemoryTransport:
    transport = MemoryTransport(MemoryBroker(is_manual=True), ambient=FixedClock().ambient)
    await transport.connect()
    await transport.declare(work(NAMES))
    return transport


def fill(transport: MemoryTransport, *bodies: bytes) -> None:
    for body in bodies:
        transport.broker.inject(NAMES.commands, KEY, body)


@pytest.mark.parametrize(
    ("attempt", "first_failed_ms", "headers"),
    [
        (1, None, {}),
        (2, None, {"x-attempt": 2}),
        (1, 5, {"x-first-failed": 5}),
        (3, 5, {"x-attempt": 3, "x-first-failed": 5}),
    ],
)
def test_headers_say_only_what_is_not_the_first_attempt(
    attempt: int, first_failed_ms: int | None, headers: dict[str, object]
) -> None:
    assert headers_of(attempt, first_failed_ms) == headers


async def test_delivery_never_comes_out_of_the_publishers_stack(transport: MemoryTransport) -> None:
    recorder = Recorder()
    await transport.consume(COMMANDS, recorder, prefetch=0)

    fill(transport, b"x")
    at_once = len(recorder)
    await asyncio.sleep(0)

    assert (at_once, recorder.bodies) == (0, [b"x"])


async def test_backlog_is_handed_over_in_portions(transport: MemoryTransport) -> None:
    fill(transport, *(b"%d" % number for number in range(HAND_OVER_MAX + 10)))
    recorder = Recorder()
    await transport.consume(COMMANDS, recorder, prefetch=0)

    await asyncio.sleep(0)
    first = len(recorder)
    await asyncio.sleep(0)

    assert (first, len(recorder)) == (HAND_OVER_MAX, HAND_OVER_MAX + 10)


async def test_settling_in_the_callback_keeps_messages_flowing(transport: MemoryTransport) -> None:
    fill(transport, *(b"%d" % number for number in range(30)))
    recorder = Recorder(settle=ack)
    await transport.consume(COMMANDS, recorder, prefetch=1)

    for _ in range(40):
        await asyncio.sleep(0)

    assert recorder.bodies == [b"%d" % number for number in range(30)]
    assert transport.broker.is_idle()


async def test_cancelling_gives_back_what_was_on_its_way_uncounted(transport: MemoryTransport) -> None:
    recorder, after = Recorder(), Recorder()
    subscription = await transport.consume(COMMANDS, recorder, prefetch=10)
    fill(transport, b"1", b"2")

    await subscription.cancel()

    await transport.consume(COMMANDS, after, prefetch=10)
    await asyncio.sleep(0)
    assert recorder.bodies == []
    assert after.bodies == [b"1", b"2"]
    assert [delivery.delivery_count for delivery in after.deliveries] == [0, 0]


async def test_what_was_on_its_way_to_a_closed_channel_is_not_handed_over(transport: MemoryTransport) -> None:
    recorder = Recorder()
    subscription = await transport.consume(COMMANDS, recorder, prefetch=2)
    resizing = asyncio.create_task(subscription.resize(1))
    await asyncio.sleep(0)
    fill(transport, b"1", b"2")

    await resizing
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert recorder.bodies == [b"1"]


async def test_resizing_a_cancelled_subscription_does_nothing(transport: MemoryTransport) -> None:
    recorder = Recorder()
    subscription = await transport.consume(COMMANDS, recorder, prefetch=1)
    await subscription.cancel()
    fill(transport, b"x")

    await subscription.resize(5)
    await asyncio.sleep(0)

    assert not subscription.is_live
    assert recorder.bodies == []


async def test_unbounded_is_wider_than_any_number(transport: MemoryTransport) -> None:
    recorder = Recorder()
    subscription = await transport.consume(COMMANDS, recorder, prefetch=1)
    fill(transport, b"1", b"2", b"3")
    await asyncio.sleep(0)

    await subscription.resize(0)
    await asyncio.sleep(0)
    wide = list(recorder.bodies)
    await subscription.resize(2)
    await asyncio.sleep(0)

    assert wide == [b"1", b"2", b"3"]
    assert recorder.bodies == [b"1", b"2", b"3", b"1", b"2"]


async def test_subscription_to_a_deleted_queue_is_not_live(transport: MemoryTransport) -> None:
    subscription = await transport.consume(COMMANDS, Recorder(), prefetch=1)

    transport.broker.delete(COMMANDS)

    assert not subscription.is_live


async def test_earlier_delivery_keeps_what_it_said(transport: MemoryTransport) -> None:
    recorder = Recorder()
    await transport.consume(COMMANDS, recorder, prefetch=1)
    fill(transport, b"x")
    await asyncio.sleep(0)
    first: Delivery = recorder.deliveries[0]

    first.reject()
    await asyncio.sleep(0)

    assert (first.redelivered, first.delivery_count) == (False, 0)
    assert (recorder.deliveries[1].redelivered, recorder.deliveries[1].delivery_count) == (True, 1)
