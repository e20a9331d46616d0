import asyncio
import dataclasses
from collections.abc import Callable

import aiormq
import pytest
import structlog.testing
from aiormq.abc import ChannelFrame

from messaging.core.topology import SINGLE_ACTIVE, Argument
from messaging.errors import ConfigurationError, ConnectionLostError, TopologyConflictError
from messaging.transports.amqp import AmqpTransport
from messaging.transports.amqp.consumer import AmqpSubscription
from messaging.transports.amqp.fast import FastChannel
from messaging.transports.amqp.feed import Feed
from messaging.transports.amqp.plain import PlainChannel
from messaging.transports.base import LinkState
from tests.support.waiting import eventually, holds
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import LIMIT_S, Recorder, ack, depth_of, publish, to, work

pytestmark = pytest.mark.broker


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def transport(rig: AmqpRig) -> AmqpTransport:
    transport = await rig.transport()
    await transport.declare(work(rig.names))
    return transport


def quickened(transport: AmqpTransport) -> None:
    """Let the liveness checks of consumers that start from now on run often."""
    transport._around = dataclasses.replace(transport._around, check_s=0.05, count_s=0.2)


async def delete(rig: AmqpRig, queue: str) -> None:
    async with rig.foreigner() as channel:
        await channel.queue_delete(queue)


async def forget(channel: aiormq.Channel, tag: str) -> None:
    """Let the broker forget the consumer while the client goes on believing in it."""
    cancel = aiormq.spec.Basic.Cancel(consumer_tag=tag, nowait=True)
    await channel.write_queue.put(ChannelFrame.marshall(channel.number, [cancel]))
    # Of a channel the broker does one thing after the other: when it answers this, it has forgotten.
    await channel.basic_qos(prefetch_count=10)


async def test_missing_queue_is_told_with_its_remedy(rig: AmqpRig, transport: AmqpTransport) -> None:
    missing = rig.names.queue("orders", "events")

    with pytest.raises(TopologyConflictError, match=rf"{missing}.*messaging topology apply"):
        await transport.consume(missing, Recorder(), prefetch=1)

    assert transport.state.problem is None


async def test_exclusive_queue_of_another_is_told(rig: AmqpRig, transport: AmqpTransport) -> None:
    other, name = await rig.transport(), rig.names.lock("q")

    async with other.lock(name):
        with pytest.raises((TopologyConflictError, ConfigurationError)):
            await asyncio.wait_for(transport.consume(name, Recorder(), prefetch=1), LIMIT_S)


async def test_deleted_queue_is_declared_again_and_consumed(rig: AmqpRig, transport: AmqpTransport) -> None:
    queue, recorder = rig.names.queue("orders", "commands"), Recorder(settle=ack)
    subscription = await transport.consume(queue, recorder, prefetch=10)
    await publish(transport, to(rig.names.commands), b"before")
    await recorder.reaches(1)

    with structlog.testing.capture_logs() as logs:
        await delete(rig, queue)
        # Both may have passed by now: of what was, the log alone tells.
        await eventually(lambda: "consumer.restored" in [entry["event"] for entry in logs], LIMIT_S)
        assert subscription.is_live

    await publish(transport, to(rig.names.commands), b"after", first=1)
    await recorder.reaches(2)
    assert recorder.bodies == [b"before", b"after"]
    events = [entry["event"] for entry in logs if entry["event"].startswith("consumer.")]
    assert events == ["consumer.lost", "consumer.restored"]


async def test_channel_closed_under_a_consumer_is_replaced(rig: AmqpRig, transport: AmqpTransport) -> None:
    queue, recorder = rig.names.queue("orders", "commands"), Recorder()
    subscription = await transport.consume(queue, recorder, prefetch=10)
    await publish(transport, to(rig.names.commands), b"held")
    (held,) = await recorder.reaches(1)

    await _channel_of(subscription).close()

    await recorder.reaches(2)
    held.ack()
    assert recorder.deliveries[1].redelivered
    assert transport.state.dropped_acks == 1
    await eventually(lambda: subscription.is_live, LIMIT_S)
    recorder.deliveries[1].ack()


async def test_consumer_that_vanished_unnoticed_is_found_by_its_tag(rig: AmqpRig, transport: AmqpTransport) -> None:
    quickened(transport)
    recorder = Recorder(settle=ack)
    subscription = await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

    _channel_of(subscription).consumers.clear()

    assert not subscription.is_live
    await publish(transport, to(rig.names.commands), b"x")
    await recorder.reaches(1)
    await eventually(lambda: subscription.is_live, LIMIT_S)


async def test_consumer_that_the_broker_does_not_know_is_found_by_its_count(
    rig: AmqpRig, transport: AmqpTransport
) -> None:
    quickened(transport)
    recorder = Recorder(settle=ack)
    subscription = await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
    channel = _channel_of(subscription)
    (tag,) = channel.consumers

    with structlog.testing.capture_logs() as logs:
        await forget(channel, tag)
        assert tag in channel.consumers
        await publish(transport, to(rig.names.commands), b"x")
        await recorder.reaches(1)

    reasons = [entry["reason"] for entry in logs if entry["event"] == "consumer.lost"]
    assert reasons == ["the broker counts 0 consumers, we count 1"]


async def test_messages_that_wait_while_none_is_delivered_are_found(rig: AmqpRig, transport: AmqpTransport) -> None:
    quickened(transport)
    queue, recorder = rig.names.queue("orders", "commands"), Recorder(settle=ack)
    subscription = await transport.consume(queue, recorder, prefetch=10)
    channel = _channel_of(subscription)
    (tag,) = channel.consumers
    await publish(transport, to(rig.names.commands), b"0")
    await recorder.reaches(1)

    with structlog.testing.capture_logs() as logs:
        async with rig.foreigner() as foreigner:
            # Somebody else's consumer stands in for ours, which the broker forgets: the count is right all the same.
            await foreigner.basic_qos(prefetch_count=1)
            await foreigner.basic_consume(queue, lambda _: asyncio.sleep(0))
            await forget(channel, tag)
            # In one go: else a look may find the first of them waiting alone.
            await asyncio.gather(
                *(publish(transport, to(rig.names.commands), b"%d" % number, first=number) for number in (1, 2, 3))
            )
            await recorder.reaches(1 + 2)

    reasons = [entry["reason"] for entry in logs if entry["event"] == "consumer.lost"]
    assert reasons == ["2 messages wait and none is delivered"]
    await recorder.reaches(4)


async def test_standby_is_not_taken_for_starving(rig: AmqpRig) -> None:
    transport, other = await rig.transport(), await rig.transport()
    queue = rig.names.queue("users", "commands")
    arguments: dict[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": 100, SINGLE_ACTIVE: True}
    for each in (transport, other):
        quickened(each)
        await each.declare(work(rig.names, arguments, service="users"))
    held = Recorder()
    await other.consume(queue, held, prefetch=1)

    with structlog.testing.capture_logs() as logs:
        standby = await transport.consume(queue, Recorder(), prefetch=1)
        await publish(transport, to(rig.names.commands), b"held", b"waits", b"waits too")
        await held.reaches(1)
        await holds(lambda: standby.is_live, what="the standby is left alone", for_s=1.0)

    assert [entry for entry in logs if entry["event"] == "consumer.lost"] == []


async def test_consumer_that_the_broker_never_answers_is_given_up_in_time(
    rig: AmqpRig, transport: AmqpTransport
) -> None:
    patient = transport._around
    transport._around = dataclasses.replace(patient, start_timeout_s=0.5)

    async with rig.stalled():
        with pytest.raises(ConnectionLostError, match=rig.names.queue("orders", "commands")):
            await asyncio.wait_for(
                transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=1), LIMIT_S
            )

    transport._around = patient
    recorder = Recorder(settle=ack)
    await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=1)
    await publish(transport, to(rig.names.commands), b"x")
    await recorder.reaches(1)


async def test_growing_keeps_the_bound_and_what_is_unsettled(rig: AmqpRig, transport: AmqpTransport) -> None:
    recorder = Recorder()
    subscription = await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=2)
    await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(10)))
    await recorder.reaches(2)

    await subscription.resize(5)

    await recorder.reaches(5)
    await holds(lambda: len(recorder) == 5, what="five unsettled deliveries are the bound")
    for delivery in list(recorder.deliveries):
        delivery.ack()
    await recorder.reaches(10)
    for delivery in recorder.deliveries:
        delivery.ack()
    assert recorder.bodies == [b"%d" % number for number in range(10)]
    assert not any(delivery.redelivered for delivery in recorder.deliveries)
    assert transport.state.dropped_acks == 0


async def test_a_consumer_that_grows_is_not_taken_for_one_that_starves(rig: AmqpRig, transport: AmqpTransport) -> None:
    subscription = await transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=1)
    seen = []

    growing = asyncio.create_task(subscription.resize(4))
    while not growing.done():
        seen.append((subscription.is_live, transport.state.problem))
        await asyncio.sleep(0)
    await growing

    assert len(seen) > 2, "the broker was asked"
    assert set(seen) == {(True, None)}


async def test_bound_made_smaller_while_the_broker_agrees_starts_a_fresh_channel(
    rig: AmqpRig, transport: AmqpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, recorder = rig.names.queue("orders", "commands"), Recorder()
    consume = AmqpSubscription._consume

    async def consume_and_narrow(self: AmqpSubscription, feed: Feed) -> None:
        await consume(self, feed)
        # What a consumer does that meets a suspect among the first deliveries; it forgets them all.
        await recorder.reaches(3)
        monkeypatch.setattr(AmqpSubscription, "_consume", consume)
        await self.resize(1)

    monkeypatch.setattr(AmqpSubscription, "_consume", consume_and_narrow)
    await publish(transport, to(rig.names.commands), b"a", b"b", b"c")
    await transport.consume(queue, recorder, prefetch=3)

    await recorder.reaches(4)
    await holds(lambda: len(recorder) == 4, what="one at a time on the fresh channel")
    assert recorder.deliveries[3].redelivered


async def test_resizing_to_the_same_changes_nothing(rig: AmqpRig, transport: AmqpTransport) -> None:
    recorder = Recorder()
    subscription = await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=2)
    channel = _channel_of(subscription)

    await subscription.resize(2)

    assert _channel_of(subscription) is channel


async def test_resizing_without_a_connection_holds_from_the_next_one_on(rig: AmqpRig, transport: AmqpTransport) -> None:
    queue, recorder = rig.names.queue("orders", "commands"), Recorder()
    subscription = await transport.consume(queue, recorder, prefetch=10)
    rig.proxy_of(transport).refuse()
    await eventually(lambda: transport.state.link is LinkState.CONNECTING, LIMIT_S)

    await asyncio.wait_for(subscription.resize(1), 5.0)

    await publish(await rig.transport(), to(rig.names.commands), b"a", b"b", b"c")
    await rig.proxy_of(transport).open()
    await recorder.reaches(1, 2 * LIMIT_S)
    await holds(lambda: len(recorder) == 1, what="one at a time from now on")


async def test_cancelled_consumer_settles_what_it_has(rig: AmqpRig, transport: AmqpTransport) -> None:
    queue, recorder = rig.names.queue("orders", "commands"), Recorder()
    subscription = await transport.consume(queue, recorder, prefetch=2)
    await publish(transport, to(rig.names.commands), b"a", b"b", b"c", b"d")
    await recorder.reaches(2)

    await subscription.cancel()
    await subscription.cancel()
    for delivery in recorder.deliveries:
        delivery.ack()
    await transport.aclose()

    assert not subscription.is_live
    assert len(recorder) == 2
    assert await depth_of(await rig.transport(), queue) == 2


async def test_cancelling_while_the_link_is_down_is_quick(rig: AmqpRig, transport: AmqpTransport) -> None:
    subscription = await transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=2)
    rig.proxy_of(transport).refuse()
    await eventually(lambda: transport.state.link is LinkState.CONNECTING, LIMIT_S)

    await asyncio.wait_for(subscription.cancel(), 8.0)

    assert not subscription.is_live


async def test_consumer_that_starves_is_shown_in_the_state(rig: AmqpRig, transport: AmqpTransport) -> None:
    queue = rig.names.queue("orders", "commands")
    subscription = await transport.consume(queue, Recorder(), prefetch=2)
    assert transport.state.problem is None
    assert isinstance(subscription, AmqpSubscription)

    subscription._is_live = False

    assert queue in (transport.state.problem or "")


async def test_consumer_that_was_cancelled_is_no_problem_and_leaves_no_channel(
    rig: AmqpRig, transport: AmqpTransport
) -> None:
    queue, held = rig.names.queue("orders", "commands"), Recorder()
    holding = await transport.consume(queue, held, prefetch=1)
    await publish(transport, to(rig.names.commands), b"held")
    await held.reaches(1)
    await holding.cancel()

    for _ in range(5):
        passing = await transport.consume(queue, Recorder(settle=ack), prefetch=1)
        await passing.cancel()
    problem, left = transport.state.problem, list(transport._subscriptions)
    held.deliveries[0].ack()
    last = await transport.consume(queue, Recorder(), prefetch=1)

    assert problem is None
    assert left == [holding, passing], "what holds a delivery, and the last"
    assert transport._subscriptions == [last]


async def test_consuming_without_a_connection_says_so(rig: AmqpRig, transport: AmqpTransport) -> None:
    await transport.aclose()

    with pytest.raises(ConnectionLostError):
        await transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=2)


@pytest.mark.parametrize("key", [b"\xff\xfe", "ü".encode()])
async def test_stranger_with_invalid_names_stops_nobody(rig: AmqpRig, transport: AmqpTransport, key: bytes) -> None:
    recorder = Recorder(settle=ack)
    await transport.declare(work(rig.names, pattern="#"))
    await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
    spoil: Callable[[bytes], bytes] = lambda data: data.replace(b"@@@@", b"\xff\xfe\xfd\xfc").replace(b"??", key)  # noqa: E731

    await rig.inject_spoiled(rig.names.commands, "dead.??", b"junk", message_id="@@@@", spoil=spoil)
    await publish(transport, to(rig.names.commands), b"good")

    await recorder.reaches(2)
    assert recorder.bodies == [b"junk", b"good"]
    assert recorder.deliveries[0].message_id is None
    assert transport.state.link is LinkState.CONNECTED


def _channel_of(subscription: object):  # type: ignore[no-untyped-def]
    assert isinstance(subscription, AmqpSubscription)
    assert subscription._feed is not None
    channel = subscription._feed.channel
    assert isinstance(channel, FastChannel | PlainChannel)
    return channel._channel
