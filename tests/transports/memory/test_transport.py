import asyncio

import pytest

from messaging.core.topology import Names, Topology
from messaging.errors import ConnectionLostError, PublishNotConfirmedError, TopologyConflictError
from messaging.testing.clock import FixedClock
from messaging.transports.base import LinkState
from messaging.transports.memory import MemoryBroker, MemoryTransport
from tests.support.sealing import as_sealed
from tests.transports.rig import KEY, Recorder, ack, label, publish, rung, to, work

NAMES = Names("t")
COMMANDS = NAMES.queue("orders", "commands")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
async def transport(clock: FixedClock) -> MemoryTransport:
    transport = MemoryTransport(MemoryBroker(is_manual=True), ambient=clock.ambient)
    await transport.connect()
    await transport.declare(work(NAMES))
    return transport


async def test_transport_that_was_never_connected_says_what_to_do(clock: FixedClock) -> None:
    transport = MemoryTransport(MemoryBroker(), ambient=clock.ambient)

    with pytest.raises(ConnectionLostError, match=r"connect\(\)"):
        await transport.declare(Topology())

    assert transport.state.link is LinkState.CONNECTING


async def test_connecting_twice_is_connecting_once(transport: MemoryTransport) -> None:
    recorder = Recorder()
    await transport.consume(COMMANDS, recorder, prefetch=1)

    await transport.connect()
    await publish(transport, to(NAMES.commands), b"x")

    await recorder.reaches(1)


async def test_closed_transport_cannot_be_connected_again(transport: MemoryTransport) -> None:
    await transport.aclose()

    with pytest.raises(ConnectionLostError, match="make a new one"):
        await transport.connect()


async def test_transports_share_one_broker(clock: FixedClock, transport: MemoryTransport) -> None:
    other = MemoryTransport(transport.broker, ambient=clock.ambient)
    await other.connect()
    recorder = Recorder(settle=ack)
    await other.consume(COMMANDS, recorder, prefetch=1)

    await publish(transport, to(NAMES.commands), b"x")

    await recorder.reaches(1)
    assert recorder.bodies == [b"x"]


async def test_fixed_clock_drives_delays(clock: FixedClock, transport: MemoryTransport) -> None:
    await transport.declare(rung(NAMES, 5_000))
    recorder = Recorder(settle=ack)
    await transport.consume(COMMANDS, recorder, prefetch=1)
    await publish(transport, to(NAMES.rung("orders", 5_000), COMMANDS), b"x")

    due_ms = transport.broker.next_due_ms()
    await transport.broker.advance_to(clock.now_ms() + 4_999)
    early = len(recorder)
    clock.advance(5_000)
    await transport.broker.advance_to(clock.now_ms())

    assert due_ms == clock.now_ms()
    assert (early, recorder.bodies) == (0, [b"x"])


async def test_killed_transport_tells_whoever_waits_in_its_process(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        publishing = asyncio.create_task(publish(transport, to(NAMES.commands), b"x"))
        await asyncio.sleep(0)
        transport.kill()

        with pytest.raises(ConnectionLostError):
            await publishing
    assert transport.state.link is LinkState.CLOSED
    await transport.aclose()


async def test_closing_while_a_close_waits_ends_with_it(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        publishing = asyncio.create_task(publish(transport, to(NAMES.commands), b"x"))
        await asyncio.sleep(0)
        first, second = (asyncio.create_task(transport.aclose()) for _ in range(2))
        await asyncio.sleep(0.01)
        were_done = (first.done(), second.done())

    await asyncio.gather(first, second, publishing)
    assert were_done == (False, False)
    assert transport.broker.bodies(COMMANDS) == [b"x"]


async def test_cancelled_close_still_closes(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        publishing = asyncio.create_task(publish(transport, to(NAMES.commands), b"x"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)

        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    with pytest.raises(ConnectionLostError):
        await publishing
    assert transport.state.link is LinkState.CLOSED
    await transport.aclose()


async def test_nothing_is_sent_while_a_close_waits(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        publishing = asyncio.create_task(publish(transport, to(NAMES.commands), b"x"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)

        with pytest.raises(ConnectionLostError, match="closing"):
            await publish(transport, to(NAMES.commands), b"y")

    await asyncio.gather(closing, publishing)


async def test_calls_during_a_cut_wait_for_the_next_link(transport: MemoryTransport) -> None:
    transport.cut()
    state = transport.state.link

    await publish(transport, to(NAMES.commands), b"x")
    depth = await transport.depth(COMMANDS)

    assert state is LinkState.CONNECTING
    assert transport.state.link is LinkState.CONNECTED
    assert depth is not None
    assert depth.messages == 1


async def test_call_that_waits_for_the_broker_uses_the_link_of_its_end(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        consuming = asyncio.create_task(transport.consume(COMMANDS, Recorder(), prefetch=1))
        await asyncio.sleep(0)
        transport.cut()
        await asyncio.sleep(0)
    subscription = await consuming

    assert subscription.is_live


async def test_unconfirmed_publish_is_sent_again_over_the_next_link(transport: MemoryTransport) -> None:
    async with transport.broker.stalled():
        publishing = asyncio.create_task(publish(transport, to(NAMES.commands), b"x"))
        await asyncio.sleep(0)
        transport.cut()
    await publishing

    # The broker had read it before the cut as well: repeated under the same id, as over a network.
    assert transport.broker.bodies(COMMANDS) == [b"x", b"x"]


async def test_mended_link_declares_what_has_gone_meanwhile(transport: MemoryTransport) -> None:
    recorder = Recorder(settle=ack)
    subscription = await transport.consume(COMMANDS, recorder, prefetch=1)
    transport.broker.delete(COMMANDS)

    transport.cut()
    await publish(transport, to(NAMES.commands), b"x")

    await recorder.reaches(1)
    assert subscription.is_live
    assert transport.state.problem is None


async def test_what_cannot_be_mended_is_shown(clock: FixedClock, transport: MemoryTransport) -> None:
    subscription = await transport.consume(COMMANDS, Recorder(), prefetch=1)
    transport.broker.delete(COMMANDS)
    transport.broker.declare(work(NAMES, {"x-max-length": 1}))

    transport.cut()
    await transport.depth(COMMANDS)

    assert "x-max-length" in (transport.state.problem or "")
    assert subscription.is_live


async def test_cut_of_a_closed_transport_does_nothing(transport: MemoryTransport) -> None:
    await transport.aclose()

    transport.cut()
    await asyncio.sleep(0)

    assert transport.state.link is LinkState.CLOSED


async def test_transport_killed_while_it_mends_stays_dead(transport: MemoryTransport) -> None:
    transport.cut()
    transport.kill()
    await asyncio.sleep(0)

    assert transport.state.link is LinkState.CLOSED
    with pytest.raises(ConnectionLostError):
        await publish(transport, to(NAMES.commands), b"x")


async def test_lock_ends_with_its_link(clock: FixedClock, transport: MemoryTransport) -> None:
    other = MemoryTransport(transport.broker, ambient=clock.ambient)
    await other.connect()
    lock = transport.lock("pass")
    await lock.__aenter__()

    transport.cut()

    async with other.lock("pass"):
        # Whoever lost the lock leaves it without taking it from the next holder.
        await lock.__aexit__(None, None, None)
        with pytest.raises(TopologyConflictError):
            await other.lock("pass").__aenter__()


async def test_message_id_that_is_none_is_left_out_of_the_error(transport: MemoryTransport) -> None:
    await transport.declare(work(NAMES, {"x-max-length": 0, "x-overflow": "reject-publish"}, service="users"))
    transport.broker.delete(COMMANDS)
    recorder = Recorder()
    await transport.declare(work(NAMES, pattern="other.#"))
    await transport.consume(COMMANDS, recorder, prefetch=1)
    transport.broker.inject(NAMES.commands, "other.name", b"foreign")
    (delivery,) = await recorder.reaches(1)

    with pytest.raises(PublishNotConfirmedError) as caught:
        await delivery.forward(to(NAMES.commands, KEY), timeout_s=1.0)

    assert caught.value.refused
    assert caught.value.message_id is None


async def test_publish_takes_effect_in_the_order_of_the_calls(transport: MemoryTransport) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(
                transport.publish(as_sealed(b"%d" % number), to(NAMES.commands), label(number), timeout_s=1.0)
            )

    assert transport.broker.bodies(COMMANDS) == [b"%d" % number for number in range(20)]


async def test_cancelled_subscriptions_are_not_kept(transport: MemoryTransport) -> None:
    for _ in range(20):
        subscription = await transport.consume(COMMANDS, Recorder(), prefetch=1)
        await subscription.cancel()

    assert len(transport._subscriptions) == 1
