"""Conformance: delays, lives that end, queues that are full. Delays are short and real."""

import asyncio
import time

import pytest

from messaging.core.delays import delay_end, delay_key, delay_topology
from messaging.core.topology import Argument, Binding, Exchange, Queue, Topology
from messaging.errors import PublishNotConfirmedError, TopologyConflictError, UnroutableError
from messaging.transports.base import Death, Delivery
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.rig import (
    KEY,
    LIMIT_S,
    Recorder,
    Rig,
    ack,
    depth_of,
    dlx,
    eventually_depth,
    fanout,
    label,
    publish,
    rung,
    to,
    work,
)


class ExpiryCases:
    """Cases of time and limits."""

    # Delays.

    async def test_delay_levels_lead_to_the_end_after_the_sum_of_their_bits(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), delay_end(rig.names, "orders")
        await transport.declare(work(rig.names) + dlx(rig.names) + delay_topology(rig.names, "orders"))
        arrived_s: dict[bytes, float] = {}

        def note(delivery: Delivery) -> None:
            arrived_s[delivery.body] = time.monotonic() - started_s
            delivery.ack()

        recorder = Recorder(settle=note)
        await transport.consume(commands, recorder, prefetch=10)
        started_s = time.monotonic()

        for number, delay_s in enumerate((3, 2, 1, 0)):
            route = to(rig.names.delay("orders"), delay_key(delay_s))
            await publish(transport, route, str(delay_s).encode(), first=number)
        await recorder.reaches(4)

        # Not in which order they came: what is due while a machine stands still comes all at once when it goes on.
        levels = {0: set[int](), 1: {0}, 2: {1}, 3: {0, 1}}
        for delivery in recorder.deliveries:
            delay_s = int(delivery.body)
            assert arrived_s[delivery.body] >= delay_s - 0.01
            assert {death.queue for death in delivery.deaths} == {
                rig.names.delay("orders", level) for level in levels.pop(delay_s)
            }
            assert (delivery.attempt, delivery.delivery_count) == (1, 0)
        assert not levels

    @pytest.mark.parametrize("key", ["nonsense", delay_key(0).replace("commands", "dead"), delay_key(1) + ".more"])
    async def test_what_delay_levels_cannot_lead_anywhere_becomes_a_dead_letter(self, rig: Rig, key: str) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names) + dlx(rig.names) + delay_topology(rig.names, "orders"))

        await publish(transport, to(rig.names.delay("orders"), key), b"astray")

        await eventually_depth(transport, rig.names.queue("orders", "dead"), 1)
        assert await depth_of(transport, delay_end(rig.names, "orders")) == 0

    async def test_one_delayed_message_without_an_end_stops_none_of_its_neighbours(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), delay_end(rig.names, "orders")
        await transport.declare(work(rig.names) + dlx(rig.names) + delay_topology(rig.names, "orders"))
        astray = to(rig.names.delay("orders"), delay_key(1).replace("commands", "gone"))

        await publish(transport, astray, *[b"astray"] * 40)
        await publish(transport, to(rig.names.delay("orders"), delay_key(1)), b"good", first=40)

        await eventually_depth(transport, commands, 1)
        await eventually_depth(transport, rig.names.queue("orders", "dead"), 40)

    async def test_delayed_message_returns_to_its_queue_only(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(rung(rig.names, 200))
        recorder, other = Recorder(settle=ack), Recorder()
        await transport.consume(commands, recorder, prefetch=10)
        await transport.consume(rig.names.queue("orders", "events"), other, prefetch=10)
        started_s = time.monotonic()

        await publish(transport, to(rig.names.rung("orders", 200), commands), b"later")
        (delivery,) = await recorder.reaches(1)

        assert time.monotonic() - started_s >= 0.19
        assert (delivery.body, delivery.queue) == (b"later", commands)
        assert (delivery.exchange, delivery.routing_key) == (rig.names.return_exchange("orders"), commands)
        assert delivery.deaths == (Death(queue=rig.names.rung("orders", 200), reason="expired", count=1),)
        assert not delivery.redelivered
        await holds(lambda: len(other) == 0, what="the neighbour gets nothing")

    async def test_delayed_message_keeps_attempt_and_first_failure(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(rung(rig.names, 100))
        recorder = Recorder(settle=ack)
        await transport.consume(commands, recorder, prefetch=10)
        route, retried = to(rig.names.rung("orders", 100), commands), label(1, attempt=2, first_failed_ms=1_700_000)

        await transport.publish(as_sealed(b"x"), route, retried, timeout_s=LIMIT_S)

        (delivery,) = await recorder.reaches(1)
        assert (delivery.message_id, delivery.attempt, delivery.first_failed_ms) == (retried.message_id, 2, 1_700_000)

    async def test_delayed_message_comes_back_round_after_round(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(rung(rig.names, 50))
        recorder = Recorder()
        await transport.consume(commands, recorder, prefetch=10)
        route = to(rig.names.rung("orders", 50), commands)
        await publish(transport, route, b"again")

        for count in range(1, 6):
            delivery = (await recorder.reaches(count))[-1]
            await delivery.forward(route, attempt=count + 1, timeout_s=LIMIT_S)
            delivery.ack()
        await recorder.reaches(6)

        assert [delivery.attempt for delivery in recorder.deliveries] == [1, 2, 3, 4, 5, 6]
        assert {delivery.body for delivery in recorder.deliveries} == {b"again"}

    async def test_shorter_delay_returns_first_and_one_rung_keeps_its_order(self, rig: Rig) -> None:
        transport, commands = await rig.transport(), rig.names.queue("orders", "commands")
        # Between the two lies more than any machine stands still.
        await transport.declare(rung(rig.names, 600_000) + rung(rig.names, 150))
        recorder = Recorder(settle=ack)
        await transport.consume(commands, recorder, prefetch=10)

        for number in range(3):
            await publish(transport, to(rig.names.rung("orders", 600_000), commands), b"long %d" % number, first=number)
        for number in range(3):
            await publish(transport, to(rig.names.rung("orders", 150), commands), b"short %d" % number, first=number)

        await recorder.reaches(3)
        assert recorder.bodies == [b"short 0", b"short 1", b"short 2"]
        await eventually_depth(transport, rig.names.rung("orders", 600_000), 3)

    # Lives that end.

    async def test_expired_message_is_dead_lettered_with_its_routing_key(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        arguments: dict[str, Argument] = {
            "x-message-ttl": 100,
            "x-dead-letter-exchange": rig.names.undeliverable_exchange("orders"),
        }
        await transport.declare(dlx(rig.names) + work(rig.names, arguments))
        dead = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "dead"), dead, prefetch=10)

        await publish(transport, to(rig.names.commands), b"too late")

        (letter,) = await dead.reaches(1)
        assert (letter.body, letter.routing_key, letter.message_id) == (b"too late", KEY, label(0).message_id)
        assert letter.deaths == (Death(queue=queue, reason="expired", count=1),)
        assert await depth_of(transport, queue) == 0

    async def test_message_without_dead_letters_expires_for_good(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "requests")
        await transport.declare(fanout(rig.names.requests, queue))

        started_s = time.monotonic()
        await publish(transport, to(rig.names.requests, expiration_ms=150), b"brief")
        waiting = await depth_of(transport, queue)
        looked_s = time.monotonic() - started_s

        await eventually_depth(transport, queue, 0)
        assert waiting == 1 or looked_s > 0.15, "it went before its time"

    async def test_delivered_message_does_not_expire(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "requests")
        await transport.declare(fanout(rig.names.requests, queue))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=1)

        await publish(transport, to(rig.names.requests, expiration_ms=100), b"held", b"waiting")
        (delivery,) = await recorder.reaches(1)
        await asyncio.sleep(0.3)
        delivery.ack()

        await eventually_depth(transport, queue, 0)
        await holds(lambda: recorder.bodies == [b"held"], what="the waiting one has expired")

    async def test_unused_queue_goes_and_a_late_reply_is_told(self, rig: Rig) -> None:
        server, requester = await rig.transport(), await rig.transport()
        queue = rig.names.reply_queue("users", "0123456789abcdef")
        replies = Topology(
            exchanges=(Exchange(name=rig.names.replies, type="topic"),),
            queues=(Queue(name=queue, arguments={"x-expires": 300}),),
            bindings=(Binding(exchange=rig.names.replies, queue=queue, routing_key=queue),),
        )
        recorder = Recorder(settle=ack)

        async def is_used() -> bool:
            # A machine that stands still between the two is enough for the queue to go.
            await requester.declare(replies)
            try:
                await requester.consume(queue, recorder, prefetch=10)
            except TopologyConflictError:
                return False
            return True

        await eventually(is_used, LIMIT_S, what="a consumer of the queue")
        await publish(server, to(rig.names.replies, queue), b"in time")
        await recorder.reaches(1)
        await holds(lambda: requester.state.problem is None, 0.5, what="a used queue stays")

        await rig.kill(requester)

        async def is_told() -> bool:
            # A look at the queue would count as use of it.
            try:
                await publish(server, to(rig.names.replies, queue), b"too late")
            except UnroutableError:
                return True
            return False

        await eventually(is_told, LIMIT_S, what="the end of a queue that nobody uses")

    # Queues that are full.

    async def test_full_queue_drops_its_oldest_by_default(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "quarantine")
        await transport.declare(fanout(rig.names.events, queue, {"x-max-length": 3}))

        await publish(transport, to(rig.names.events), b"1", b"2", b"3", b"4", b"5")

        recorder = Recorder(settle=ack)
        await eventually_depth(transport, queue, 3)
        await transport.consume(queue, recorder, prefetch=10)
        await recorder.reaches(3)
        assert recorder.bodies == [b"3", b"4", b"5"]

    async def test_full_queue_is_bounded_in_bytes_too(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "quarantine")
        await transport.declare(fanout(rig.names.events, queue, {"x-max-length": 100, "x-max-length-bytes": 1_000}))

        await publish(transport, to(rig.names.events), *(bytes([number]) * 300 for number in range(5)))

        recorder = Recorder(settle=ack)
        await eventually_depth(transport, queue, 3)
        await transport.consume(queue, recorder, prefetch=10)
        await recorder.reaches(3)
        assert [body[0] for body in recorder.bodies] == [2, 3, 4]

    async def test_dropped_messages_are_dead_lettered(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        arguments: dict[str, Argument] = {
            "x-max-length": 1,
            "x-dead-letter-exchange": rig.names.undeliverable_exchange("orders"),
        }
        await transport.declare(dlx(rig.names) + work(rig.names, arguments))
        dead = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "dead"), dead, prefetch=10)

        await publish(transport, to(rig.names.commands), b"old", b"new")

        (letter,) = await dead.reaches(1)
        assert letter.body == b"old"
        assert letter.deaths == (Death(queue=queue, reason="maxlen", count=1),)

    async def test_full_queue_that_rejects_refuses_the_publisher(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, {"x-max-length": 2, "x-overflow": "reject-publish"}))
        await publish(transport, to(rig.names.commands), b"1", b"2")

        with pytest.raises(PublishNotConfirmedError) as caught:
            await publish(transport, to(rig.names.commands), b"3", first=3)

        assert caught.value.refused
        assert caught.value.message_id is not None
        assert caught.value.message_id.hex == label(3).message_id
        recorder = Recorder(settle=ack)
        await transport.consume(queue, recorder, prefetch=10)
        await recorder.reaches(2)
        await publish(transport, to(rig.names.commands), b"4", first=4)
        await recorder.reaches(3)
        assert recorder.bodies == [b"1", b"2", b"4"]

    async def test_one_full_queue_of_two_refuses_while_the_other_has_its_copy(self, rig: Rig) -> None:
        transport = await rig.transport()
        full = work(rig.names, {"x-max-length": 1, "x-overflow": "reject-publish"})
        await transport.declare(full + work(rig.names, {}, service="users"))
        await publish(transport, to(rig.names.commands), b"1")

        with pytest.raises(PublishNotConfirmedError) as caught:
            await publish(transport, to(rig.names.commands), b"2")

        assert caught.value.refused
        await eventually_depth(transport, rig.names.queue("orders", "commands"), 1)
        await eventually_depth(transport, rig.names.queue("users", "commands"), 2)
