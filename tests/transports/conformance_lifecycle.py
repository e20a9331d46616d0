"""Conformance: declaring, closing, crashing, mending, locks, and a broker that does not answer."""

import asyncio
import time
from collections.abc import Awaitable

import pytest

from messaging.core.sealed import Route
from messaging.core.topology import Exchange, Names, Subscriptions, Topology
from messaging.errors import (
    ConnectionLostError,
    MessageTooLargeError,
    MessagingError,
    PublishNotConfirmedError,
    TopologyConflictError,
    UnroutableError,
)
from messaging.transports.base import LinkState, Transport
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.rig import LIMIT_S, Recorder, Rig, ack, dlx, eventually_depth, label, publish, to, work


class LifecycleCases:
    """Cases of a transport's life."""

    # Declaring.

    async def test_declaring_again_changes_nothing(self, rig: Rig) -> None:
        transport = await rig.transport()
        topology = _real(rig.names)
        await transport.declare(topology)
        await publish(transport, to(rig.names.commands), b"stays")

        await transport.declare(topology)
        await (await rig.transport()).declare(topology)

        await eventually_depth(transport, rig.names.queue("orders", "commands"), 1)

    async def test_concurrent_declarations_agree(self, rig: Rig) -> None:
        transports = [await rig.transport() for _ in range(5)]

        await asyncio.gather(*(transport.declare(_real(rig.names)) for transport in transports * 2))

        for transport in transports:
            await publish(transport, to(rig.names.commands), b"x")
        await eventually_depth(transports[0], rig.names.queue("orders", "commands"), 5)

    async def test_queue_with_other_arguments_is_a_conflict_that_shows_both(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {"x-message-ttl": 60_000}))

        with pytest.raises(TopologyConflictError) as caught:
            await transport.declare(work(rig.names, {"x-message-ttl": 5_000}))

        message = str(caught.value)
        for part in (rig.names.queue("orders", "commands"), "x-message-ttl", "60000", "5000"):
            assert part in message

    async def test_exchange_of_another_type_is_a_conflict_that_shows_both(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(Topology(exchanges=(Exchange(name=rig.names.commands, type="topic"),)))

        with pytest.raises(TopologyConflictError) as caught:
            await transport.declare(Topology(exchanges=(Exchange(name=rig.names.commands, type="direct"),)))

        message = str(caught.value)
        for part in (rig.names.commands, "topic", "direct"):
            assert part in message

    async def test_transport_lives_on_after_a_conflict(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        with pytest.raises(TopologyConflictError):
            await transport.declare(work(rig.names, {"x-max-length": 5}))

        await publish(transport, to(rig.names.commands), b"x")
        await recorder.reaches(1)

    # Closing and starting again.

    async def test_state_follows_the_life(self, rig: Rig) -> None:
        transport = await rig.transport()
        before = transport.state

        await transport.aclose()

        assert (before.link, before.problem, before.dropped_acks) == (LinkState.CONNECTED, None, 0)
        assert transport.state.link is LinkState.CLOSED

    async def test_closing_twice_is_closing_once(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        await transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=1)

        await asyncio.gather(transport.aclose(), transport.aclose())
        await transport.aclose()

        assert transport.state.link is LinkState.CLOSED

    async def test_closed_transport_refuses_to_work(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        await transport.aclose()

        with pytest.raises(ConnectionLostError):
            await publish(transport, to(rig.names.commands), b"x")
        with pytest.raises(ConnectionLostError):
            await transport.consume(rig.names.queue("orders", "commands"), Recorder(), prefetch=1)

    async def test_closing_returns_what_is_unsettled(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"a", b"b")
        deliveries = list(await recorder.reaches(2))

        await transport.aclose()
        for delivery in deliveries:
            delivery.ack()

        assert transport.state.dropped_acks == 2
        again = Recorder(settle=ack)
        await (await rig.transport()).consume(queue, again, prefetch=10)
        await again.reaches(2)
        assert sorted(again.bodies) == [b"a", b"b"]
        assert all(delivery.redelivered for delivery in again.deliveries)

    async def test_forwarding_after_the_end_says_so(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=1)
        await publish(transport, to(rig.names.commands), b"x")
        (delivery,) = await recorder.reaches(1)

        await transport.aclose()

        with pytest.raises(ConnectionLostError):
            await delivery.forward(to(rig.names.commands), timeout_s=LIMIT_S)
        delivery.sample(to(rig.names.commands), limit_bytes=10)

    async def test_closing_during_a_forward_loses_nothing(self, rig: Rig) -> None:
        transport, watcher = await rig.transport(), await rig.transport()
        queue, dead = rig.names.queue("orders", "commands"), rig.names.queue("orders", "dead")
        await transport.declare(work(rig.names) + dlx(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=1)
        await publish(transport, to(rig.names.commands), b"failing")
        (delivery,) = await recorder.reaches(1)

        async def bury() -> None:
            await delivery.forward(to(rig.names.undeliverable_exchange("orders"), "x"), timeout_s=LIMIT_S)
            delivery.ack()

        outcome, _ = await asyncio.gather(_outcome(bury()), transport.aclose())

        # Buried, or back where it was, or both: never neither.
        if outcome is None:
            await eventually_depth(watcher, dead, 1)
        else:
            await eventually_depth(watcher, queue, 1)

    async def test_what_was_acked_before_closing_stays_acked(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=0)
        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(100)))
        for delivery in list(await recorder.reaches(100)):
            delivery.ack()

        await transport.aclose()

        after = Recorder()
        await (await rig.transport()).consume(queue, after, prefetch=0)
        await holds(lambda: len(after) == 0, what="every ack reached the broker")

    async def test_messages_outlive_the_transports(self, rig: Rig) -> None:
        first = await rig.transport()
        await first.declare(work(rig.names))
        await publish(first, to(rig.names.commands), b"kept")
        await first.aclose()

        second, recorder = await rig.transport(), Recorder(settle=ack)
        await second.declare(work(rig.names))
        await second.consume(rig.names.queue("orders", "commands"), recorder, prefetch=1)

        await recorder.reaches(1)
        assert recorder.bodies == [b"kept"]

    # A link that breaks.

    async def test_cut_link_mends_itself_and_its_consumers(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        subscription = await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"held")
        (held,) = await recorder.reaches(1)

        await rig.cut(transport)
        await recorder.reaches(2, 3 * LIMIT_S)
        held.ack()

        again = recorder.deliveries[1]
        assert (again.body, again.redelivered) == (b"held", True)
        assert transport.state.dropped_acks == 1
        again.ack()
        await eventually(lambda: subscription.is_live, LIMIT_S)
        await eventually(lambda: transport.state.link is LinkState.CONNECTED, LIMIT_S)
        await publish(transport, to(rig.names.commands), b"after", first=1)
        await recorder.reaches(3)
        assert recorder.bodies == [b"held", b"held", b"after"]

    async def test_publishes_over_a_cut_link_arrive_or_raise(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        outcomes: dict[int, BaseException | None] = {}

        async def send(number: int) -> None:
            outcomes[number] = await _outcome(_publish(transport, rig.names, number, timeout_s=2 * LIMIT_S))

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(send(number))
                if number == 100:
                    await asyncio.sleep(0)
                    group.create_task(rig.cut(transport))

        assert [number for number, outcome in outcomes.items() if outcome is not None] == []
        seen = Recorder(settle=ack)
        await (await rig.transport()).consume(queue, seen, prefetch=100)
        await eventually(lambda: len(set(seen.bodies)) == 200, LIMIT_S, what=lambda: f"{len(set(seen.bodies))} of 200")

    # A broker that does not answer.

    async def test_publish_without_a_confirm_ends_at_its_deadline(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        async with rig.stalled():
            started_s = time.monotonic()
            outcome = await _outcome(_publish(transport, rig.names, 5, timeout_s=0.5))
            took_s = time.monotonic() - started_s

        assert isinstance(outcome, PublishNotConfirmedError)
        assert not outcome.refused
        assert outcome.message_id is not None
        assert outcome.message_id.hex == label(5).message_id
        assert 0.4 <= took_s < LIMIT_S
        await _publish(transport, rig.names, 6, timeout_s=2 * LIMIT_S)

    async def test_no_publish_in_flight_waits_for_another(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        publishes = []

        async with rig.stalled():
            # Were they serialised, the first would hold the others back beyond their own deadlines.
            publishes = [asyncio.create_task(_publish(transport, rig.names, number)) for number in range(50)]
            short = [asyncio.create_task(_publish(transport, rig.names, 50 + n, timeout_s=0.3)) for n in range(5)]
            started_s = time.monotonic()
            late = await asyncio.gather(*short, return_exceptions=True)
            took_s = time.monotonic() - started_s
            assert not any(publish.done() for publish in publishes)
        await asyncio.gather(*publishes)

        assert all(isinstance(outcome, PublishNotConfirmedError) for outcome in late)
        assert took_s < LIMIT_S
        seen = Recorder(settle=ack)
        await transport.consume(queue, seen, prefetch=100)
        wanted = {b"%d" % number for number in range(50)}
        await eventually(lambda: wanted <= set(seen.bodies), LIMIT_S, what=lambda: f"{len(seen)} came")

    async def test_closing_with_unconfirmed_publishes_is_bounded_and_tells_their_callers(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        async with rig.stalled():
            publishes = [asyncio.create_task(_publish(transport, rig.names, n, timeout_s=60.0)) for n in range(3)]
            await holds(lambda: not any(publish.done() for publish in publishes), 0.1)
            await asyncio.wait_for(transport.aclose(), 3 * LIMIT_S)
            outcomes = await asyncio.wait_for(asyncio.gather(*publishes, return_exceptions=True), LIMIT_S)

        assert all(isinstance(outcome, PublishNotConfirmedError | ConnectionLostError) for outcome in outcomes)

    async def test_closing_waits_for_confirms_that_come(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        publishes = [asyncio.create_task(_publish(transport, rig.names, number)) for number in range(20)]
        await asyncio.sleep(0)

        await transport.aclose()

        assert await asyncio.gather(*publishes, return_exceptions=True) == [None] * 20
        await eventually_depth(await rig.transport(), queue, 20)

    # Publishing without waiting.

    async def test_submit_tells_once_the_broker_has_the_message(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        outcomes = [_submit(transport, to(rig.names.commands), number) for number in range(20)]

        assert not any(outcome.done() for outcome in outcomes)
        assert await asyncio.gather(*outcomes) == [None] * 20
        await eventually_depth(transport, queue, 20)

    async def test_flush_sends_what_was_submitted_and_nothing_twice(self, rig: Rig) -> None:
        transport, recorder = await rig.transport(), Recorder(settle=ack)
        await transport.declare(work(rig.names))
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        transport.flush()

        outcomes = [_submit(transport, to(rig.names.commands), number) for number in range(3)]
        transport.flush()
        outcomes.append(_submit(transport, to(rig.names.commands), 3))
        transport.flush()
        transport.flush()

        await asyncio.gather(*outcomes)
        await recorder.reaches(4)
        assert len(recorder) == 4

    async def test_submit_tells_why_a_message_failed(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        nobody = _submit(transport, to(rig.names.commands, "billing.pay.v1"), 1)
        good = _submit(transport, to(rig.names.commands), 2)

        with pytest.raises(UnroutableError):
            await nobody
        await good

    async def test_submit_on_a_closed_transport_tells_and_does_not_raise(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.aclose()

        with pytest.raises(ConnectionLostError):
            await _submit(transport, to(rig.names.commands), 1)

    async def test_submit_of_whoever_waits_no_longer_reaches_the_queue(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))

        _submit(transport, to(rig.names.commands), 1).cancel()
        await _submit(transport, to(rig.names.commands), 2)

        await eventually_depth(transport, queue, 2)

    # Sizes and locks.

    async def test_oversize_body_is_told_and_the_transport_lives_on(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        body = bytes(rig.max_body_bytes + 1)

        with pytest.raises(MessageTooLargeError):
            await transport.publish(as_sealed(body), to(rig.names.commands), label(), timeout_s=3 * LIMIT_S)

        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=1)
        await _publish(transport, rig.names, 1, timeout_s=2 * LIMIT_S)
        await recorder.reaches(1)
        assert recorder.bodies == [b"1"]

    async def test_lock_is_held_by_one(self, rig: Rig) -> None:
        holder, other = await rig.transport(), await rig.transport()
        name = rig.names.lock(rig.names.queue("orders", "dead"))

        async with holder.lock(name):
            for transport in (other, holder):
                with pytest.raises(TopologyConflictError, match=r"orders\.dead\.lock"):
                    async with transport.lock(name):
                        pytest.fail("two hold one lock")

        async with other.lock(name):
            pass

    async def test_lock_of_a_crashed_holder_is_free(self, rig: Rig) -> None:
        holder, other = await rig.transport(), await rig.transport()
        name = rig.names.lock(rig.names.queue("orders", "dead"))
        lock = holder.lock(name)
        await lock.__aenter__()

        await rig.kill(holder)

        async def is_free() -> bool:
            try:
                async with other.lock(name):
                    return True
            except TopologyConflictError:
                return False

        await eventually(is_free, LIMIT_S, what="the lock of a dead holder")


def _real(names: Names) -> Topology:
    """Return what a service that handles, hears and retries really declares."""
    subscriptions = Subscriptions(
        commands=frozenset({("orders.place_order", 1)}),
        requests=frozenset({("orders.get_order", 1)}),
        events=frozenset({("users.user_registered", 1)}),
        faults=True,
        rungs_ms=(1_000, 5_000),
    )
    return names.of_service("orders", subscriptions) + names.of_replies("orders", "0123456789abcdef")


async def _publish(transport: Transport, names: Names, number: int, *, timeout_s: float = 2 * LIMIT_S) -> None:
    await transport.publish(as_sealed(b"%d" % number), to(names.commands), label(number), timeout_s=timeout_s)


def _submit(transport: Transport, route: Route, number: int) -> asyncio.Future[None]:
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    transport.submit(as_sealed(b"%d" % number), route, label(number), timeout_s=2 * LIMIT_S, outcome=outcome)
    return outcome


async def _outcome(call: Awaitable[None]) -> MessagingError | None:
    try:
        await call
    except MessagingError as error:
        return error
    return None
