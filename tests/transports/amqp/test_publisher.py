import asyncio
from collections.abc import AsyncIterator

import pytest

from messaging.core.sealed import Label
from messaging.errors import ConnectionLostError, PublishNotConfirmedError, TopologyConflictError
from messaging.transports.amqp import AmqpTransport
from messaging.transports.base import LinkState
from tests.support.ambient import REAL
from tests.support.broker import Broker
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import LIMIT_S, Recorder, ack, depth_of, eventually_depth, label, to, work

pytestmark = pytest.mark.broker


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def transport(rig: AmqpRig) -> AmqpTransport:
    transport = await rig.transport()
    await transport.declare(work(rig.names))
    return transport


async def send(transport: AmqpTransport, rig: AmqpRig, number: int, *, timeout_s: float = 2 * LIMIT_S) -> None:
    await transport.publish(as_sealed(b"%d" % number), to(rig.names.commands), label(number), timeout_s=timeout_s)


async def test_publishes_in_flight_share_one_round_trip(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    publishes = [asyncio.create_task(send(transport, rig, number)) for number in range(300)]
    watcher = await rig.transport()

    # The broker gets all of them although it confirms none: none waits for another's confirm.
    await eventually_depth(watcher, rig.names.queue("orders", "commands"), 300)
    assert not any(publish.done() for publish in publishes)

    proxy.release()
    await asyncio.gather(*publishes)


async def test_window_bounds_what_is_unconfirmed_and_the_rest_waits(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    publishes = [asyncio.create_task(send(transport, rig, number)) for number in range(700)]
    watcher = await rig.transport()
    queue = rig.names.queue("orders", "commands")

    async def is_full() -> bool:
        return await depth_of(watcher, queue) == 512

    await eventually(is_full, LIMIT_S)
    await holds(is_full, 0.2, what="two channels of 256 are the bound")
    proxy.release()
    await asyncio.gather(*publishes)
    assert await depth_of(watcher, queue) == 700


async def test_window_bounds_bytes_too(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    body = as_sealed(bytes(2_000_000))
    publishes = [
        asyncio.create_task(transport.publish(body, to(rig.names.commands), label(number), timeout_s=2 * LIMIT_S))
        for number in range(20)
    ]
    watcher = await rig.transport()
    queue = rig.names.queue("orders", "commands")

    async def is_full() -> bool:
        return await depth_of(watcher, queue) == 16

    await eventually(is_full, LIMIT_S)
    await holds(is_full, 0.2, what="16 MiB for each of two channels are the bound")
    proxy.release()
    await asyncio.gather(*publishes)


async def test_one_id_is_never_twice_in_flight_on_one_channel(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    publishes = [
        asyncio.create_task(
            transport.publish(as_sealed(b"same"), to(rig.names.commands), label(1), timeout_s=2 * LIMIT_S)
        )
        for _ in range(5)
    ]
    await asyncio.sleep(0)
    others = [asyncio.create_task(send(transport, rig, number)) for number in range(2, 10)]
    watcher = await rig.transport()
    queue = rig.names.queue("orders", "commands")

    async def are_sent() -> bool:
        return await depth_of(watcher, queue) == 2 + 8

    await eventually(are_sent, LIMIT_S)
    await holds(are_sent, 0.2, what="two channels take the id once each, and nobody else waits for it")
    proxy.release()
    await asyncio.gather(*publishes, *others)
    assert await depth_of(watcher, queue) == 5 + 8


async def test_what_was_unconfirmed_when_the_link_broke_arrives_once_confirmed(
    rig: AmqpRig, transport: AmqpTransport
) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    publishes = [asyncio.create_task(send(transport, rig, number)) for number in range(100)]
    await eventually_depth(await rig.transport(), rig.names.queue("orders", "commands"), 100)
    assert not any(publish.done() for publish in publishes)

    await rig.cut(transport)
    proxy.release()
    await asyncio.gather(*publishes)

    recorder = Recorder(settle=ack)
    await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=100)
    await recorder.reaches(200)
    # The broker had them all before the cut: each arrives twice with the same bytes, and none is lost.
    await holds(lambda: len(recorder) == 200, 0.3)
    assert sorted(recorder.bodies) == sorted([b"%d" % number for number in range(100)] * 2)


async def test_publish_during_an_outage_waits_for_its_end(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.refuse()
    await eventually(lambda: transport.state.link is LinkState.CONNECTING, LIMIT_S)
    publishes = [asyncio.create_task(send(transport, rig, number)) for number in range(20)]
    await holds(lambda: not any(publish.done() for publish in publishes), 0.3)

    await proxy.open()
    await asyncio.gather(*publishes)

    assert await depth_of(transport, rig.names.queue("orders", "commands")) == 20


async def test_publish_during_an_outage_ends_at_its_deadline_with_the_reason(
    rig: AmqpRig, transport: AmqpTransport
) -> None:
    rig.proxy_of(transport).refuse()
    await eventually(lambda: "no broker at" in (transport.state.problem or ""), LIMIT_S)

    with pytest.raises(PublishNotConfirmedError, match=r"never sent.*no broker at") as caught:
        await send(transport, rig, 7, timeout_s=0.2)

    assert caught.value.message_id is not None
    assert not caught.value.refused


async def test_what_has_ended_during_an_outage_is_not_kept(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.refuse()
    await eventually(lambda: transport.state.link is LinkState.CONNECTING, LIMIT_S)
    lasting = [asyncio.create_task(send(transport, rig, number)) for number in range(20)]

    for _ in range(12):
        short = (send(transport, rig, 1000 + number, timeout_s=0.0) for number in range(500))
        outcomes = await asyncio.gather(*short, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {PublishNotConfirmedError}

    assert len(transport._publisher._queue) < 3_000
    await proxy.open()
    await asyncio.gather(*lasting)
    assert await depth_of(transport, rig.names.queue("orders", "commands")) == 20


async def test_channel_that_confirms_nothing_is_replaced(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    waiting = asyncio.create_task(send(transport, rig, 1))

    with pytest.raises(PublishNotConfirmedError, match="outcome is unknown"):
        await send(transport, rig, 2, timeout_s=1.5)
    proxy.release()

    await waiting


async def test_slow_confirm_within_a_short_deadline_costs_no_channel(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    await send(transport, rig, 0)
    proxy.hold()
    with pytest.raises(PublishNotConfirmedError):
        await send(transport, rig, 1, timeout_s=0.1)
    proxy.release()

    await asyncio.gather(*(send(transport, rig, number) for number in range(2, 20)))

    assert proxy.connections_total == 2
    assert await depth_of(transport, rig.names.queue("orders", "commands")) == 20


async def test_message_that_ends_its_channel_takes_nobody_with_it(rig: AmqpRig, transport: AmqpTransport) -> None:
    missing = to(f"{rig.names.namespace}.nowhere")

    async def bad(number: int) -> None:
        await transport.publish(as_sealed(b"bad"), missing, label(1000 + number), timeout_s=2 * LIMIT_S)

    good = [asyncio.create_task(send(transport, rig, number)) for number in range(100)]
    bads = [asyncio.create_task(bad(number)) for number in range(3)]
    more = [asyncio.create_task(send(transport, rig, 100 + number)) for number in range(100)]

    assert await asyncio.gather(*good, *more) == [None] * 200
    outcomes = await asyncio.gather(*bads, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TopologyConflictError] * 3
    seen = Recorder(settle=ack)
    await transport.consume(rig.names.queue("orders", "commands"), seen, prefetch=100)
    await eventually(lambda: len(set(seen.bodies)) == 200, LIMIT_S)


async def test_cancelled_publish_leaves_the_others_alone(rig: AmqpRig, transport: AmqpTransport) -> None:
    proxy = rig.proxy_of(transport)
    proxy.hold()
    publishes = [asyncio.create_task(send(transport, rig, number)) for number in range(10)]
    await asyncio.sleep(0.05)

    publishes[3].cancel()
    proxy.release()

    outcomes = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(asyncio.CancelledError) == 1
    assert outcomes.count(None) == 9


async def test_samples_beyond_the_window_are_dropped(rig: AmqpRig, transport: AmqpTransport) -> None:
    rig.proxy_of(transport).hold()
    junk = Label(message_id="", type="")

    for _ in range(2_000):
        transport.sample(b"x", to(rig.names.commands), junk)

    publisher = transport._publisher
    assert len(publisher._open) == 512
    rig.proxy_of(transport).release()
    await eventually(lambda: not publisher._open, LIMIT_S)

    # A slow machine may have dropped more of them: nothing is promised.
    assert (await depth_of(await rig.transport(), rig.names.queue("orders", "commands")) or 0) <= 512


@pytest.fixture
async def unconnected(broker: Broker) -> AsyncIterator[AmqpTransport]:
    transport = AmqpTransport([broker.url], ambient=REAL)
    yield transport
    await transport.aclose()


async def test_publish_before_connecting_says_so(unconnected: AmqpTransport) -> None:
    with pytest.raises(ConnectionLostError, match="connect"):
        await unconnected.publish(as_sealed(b"x"), to("x"), label(), timeout_s=1.0)
