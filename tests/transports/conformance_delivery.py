"""Conformance: who gets a message, how many at a time, and what is known about it."""

from collections import Counter

import pytest

from messaging.errors import TopologyConflictError
from messaging.transports.base import Delivery, QueueDepth
from tests.support.waiting import eventually, holds
from tests.transports.rig import LIMIT_S, Recorder, Rig, ack, eventually_depth, publish, to, work


class DeliveryCases:
    """Cases of consuming."""

    # Sharing.

    async def test_competing_consumers_share_and_none_gets_a_copy(self, rig: Rig) -> None:
        publisher, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await publisher.declare(work(rig.names))
        recorders = [Recorder(settle=ack) for _ in range(3)]
        for recorder in recorders:
            await (await rig.transport()).consume(queue, recorder, prefetch=5)

        await publish(publisher, to(rig.names.commands), *(b"%d" % number for number in range(300)))

        await eventually(lambda: sum(len(recorder) for recorder in recorders) >= 300, LIMIT_S)
        assert all(len(recorder) >= 30 for recorder in recorders)
        taken = Counter(body for recorder in recorders for body in recorder.bodies)
        assert taken == Counter(b"%d" % number for number in range(300))

    async def test_consumers_of_one_transport_share_too(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        one, two = Recorder(settle=ack), Recorder(settle=ack)
        await transport.consume(queue, one, prefetch=1)
        await transport.consume(queue, two, prefetch=1)

        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(40)))

        await eventually(lambda: len(one) + len(two) >= 40, LIMIT_S)
        assert sorted(one.bodies + two.bodies) == sorted(b"%d" % number for number in range(40))
        assert len(one) >= 5
        assert len(two) >= 5

    async def test_fifty_consumers_share_five_thousand_messages(self, rig: Rig) -> None:
        publisher, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await publisher.declare(work(rig.names, {}))
        seen: Counter[bytes] = Counter()
        busy: set[int] = set()

        def taker(number: int) -> Recorder:
            def take(delivery: Delivery) -> None:
                seen[delivery.body] += 1
                busy.add(number)
                delivery.ack()

            return Recorder(settle=take)

        consumers = [await rig.transport() for _ in range(5)]
        for number in range(50):
            await consumers[number % 5].consume(queue, taker(number), prefetch=10)

        # Consumers first: a broker gives a backlog to whoever comes first.
        await publish(publisher, to(rig.names.commands), *(b"%d" % number for number in range(5_000)))

        await eventually(lambda: seen.total() >= 5_000, 60.0, what=lambda: f"5000 deliveries ({seen.total()} came)")
        assert set(seen.values()) == {1}
        assert len(seen) == 5_000
        assert len(busy) > 25

    async def test_slow_consumer_does_not_starve_others(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        other_queue = rig.names.queue("users", "commands")
        await transport.declare(work(rig.names) + work(rig.names, service="users"))
        slow, quick, other = Recorder(), Recorder(settle=ack), Recorder(settle=ack)
        await transport.consume(queue, slow, prefetch=2)
        await transport.consume(queue, quick, prefetch=2)
        await transport.consume(other_queue, other, prefetch=2)

        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(50)))

        await other.reaches(50)
        await quick.reaches(48)
        assert len(slow) == 2

    # Prefetch.

    async def test_nothing_is_delivered_beyond_the_prefetch(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=3)

        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(20)))
        await recorder.reaches(3)
        await holds(lambda: len(recorder) == 3, what="three unsettled deliveries are the bound")
        recorder.deliveries[0].ack()
        await recorder.reaches(4)

        await holds(lambda: len(recorder) == 4, what="one ack makes room for one")

    async def test_prefetch_zero_is_unbounded(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=0)

        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(300)))

        await recorder.reaches(300)

    async def test_larger_prefetch_lets_more_in(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        subscription = await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=1)
        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(10)))
        await recorder.reaches(1)

        await subscription.resize(4)

        await recorder.reaches(4)
        await holds(lambda: len(recorder) == 4, what="four unsettled deliveries are the bound")
        assert recorder.bodies == [b"0", b"1", b"2", b"3"]

    async def test_smaller_prefetch_returns_what_is_unsettled(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        subscription = await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(5)))
        old = list(await recorder.reaches(5))

        await subscription.resize(1)
        await recorder.reaches(6)
        await holds(lambda: len(recorder) == 6, what="one at a time from now on")
        for delivery in old:
            delivery.ack()

        again = recorder.deliveries[5]
        assert again.redelivered
        assert transport.state.dropped_acks == 5
        again.ack()
        for count in range(7, 11):
            (await recorder.reaches(count))[-1].ack()
        assert sorted(recorder.bodies[5:]) == [b"0", b"1", b"2", b"3", b"4"]
        await eventually_depth(transport, queue, 0)

    # What is known.

    async def test_subscription_knows_its_queue_and_that_it_is_fed(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))

        subscription = await transport.consume(queue, Recorder(), prefetch=1)

        assert subscription.queue == queue
        assert subscription.is_live

    async def test_consuming_a_missing_queue_says_so_and_the_transport_lives_on(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        missing = rig.names.queue("orders", "missing")

        with pytest.raises(TopologyConflictError, match=r"orders\.missing"):
            await transport.consume(missing, Recorder(), prefetch=1)

        recorder = Recorder(settle=ack)
        await transport.consume(queue, recorder, prefetch=1)
        await publish(transport, to(rig.names.commands), b"x")
        await recorder.reaches(1)

    async def test_depth_counts_what_waits_and_who_consumes(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, {}))
        await publish(transport, to(rig.names.commands), b"a", b"b", b"c")
        waiting = await transport.depth(queue)

        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=1)
        await recorder.reaches(1)

        assert waiting == QueueDepth(messages=3, consumers=0)
        assert await transport.depth(queue) == QueueDepth(messages=2, consumers=1)
        assert await transport.depth(rig.names.queue("orders", "missing")) is None
