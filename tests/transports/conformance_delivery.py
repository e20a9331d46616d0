"""Conformance: who gets a message, how many at a time, and what becomes of it when settled or its consumer dies."""

from collections import Counter

import pytest

from messaging.core.topology import Argument
from messaging.errors import TopologyConflictError
from messaging.transports.base import Death, Delivery, QueueDepth
from tests.support.waiting import eventually, holds
from tests.transports.rig import LIMIT_S, Recorder, Rig, ack, dlx, eventually_depth, publish, reject, to, work

QUEUE_TYPES = pytest.mark.parametrize(
    "arguments", [{"x-queue-type": "quorum", "x-delivery-limit": 100}, {}], ids=["quorum", "classic"]
)


class DeliveryCases:
    """Cases of consuming and settling."""

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

    # Settling.

    @QUEUE_TYPES
    async def test_acked_message_is_gone(self, rig: Rig, arguments: dict[str, Argument]) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, arguments))
        recorder = Recorder(settle=ack)
        await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"a", b"b")
        await recorder.reaches(2)

        await transport.aclose()

        after = Recorder()
        await (await rig.transport()).consume(queue, after, prefetch=10)
        await holds(lambda: len(after) == 0, what="nothing comes back")

    async def test_acks_in_any_order_settle_just_their_own(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(6)))
        deliveries = list(await recorder.reaches(6))

        for number in (5, 1, 3):
            deliveries[number].ack()
        await transport.aclose()

        after = Recorder()
        await (await rig.transport()).consume(queue, after, prefetch=10)
        await after.reaches(3)
        await holds(lambda: sorted(after.bodies) == [b"0", b"2", b"4"], what="the unsettled ones come back")

    async def test_settling_twice_is_harmless(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=1)
        await publish(transport, to(rig.names.commands), b"a", b"b", b"c")

        for count in range(1, 4):
            delivery = (await recorder.reaches(count))[-1]
            delivery.ack()
            delivery.ack()
            delivery.reject()
            delivery.give_back()

        await eventually_depth(transport, queue, 0)
        await holds(lambda: recorder.bodies == [b"a", b"b", b"c"], what="each was delivered once")

    async def test_rejected_message_comes_back_marked_and_counted(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"x")

        for count in (1, 2):
            (await recorder.reaches(count))[-1].reject()
        await recorder.reaches(3)

        assert [delivery.redelivered for delivery in recorder.deliveries] == [False, True, True]
        assert [delivery.delivery_count for delivery in recorder.deliveries] == [0, 1, 2]
        assert {(delivery.body, delivery.message_id) for delivery in recorder.deliveries} == {
            (b"x", recorder.deliveries[0].message_id)
        }

    async def test_classic_queue_does_not_count(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"x")

        (await recorder.reaches(1))[0].reject()

        again = (await recorder.reaches(2))[1]
        assert (again.redelivered, again.delivery_count) == (True, 0)

    @QUEUE_TYPES
    async def test_given_back_message_goes_to_another_consumer(self, rig: Rig, arguments: dict[str, Argument]) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, arguments))
        first = Recorder()
        subscription = await transport.consume(queue, first, prefetch=1)
        await publish(transport, to(rig.names.commands), b"x")
        (delivery,) = await first.reaches(1)
        await subscription.cancel()
        second = Recorder(settle=ack)
        await (await rig.transport()).consume(queue, second, prefetch=1)

        delivery.give_back()

        (again,) = await second.reaches(1)
        assert (again.body, again.redelivered) == (b"x", True)
        assert len(first) == 1

    # Consumers that end.

    @QUEUE_TYPES
    async def test_crash_of_a_consumer_returns_its_messages(self, rig: Rig, arguments: dict[str, Argument]) -> None:
        publisher, doomed = await rig.transport(), await rig.transport()
        queue = rig.names.queue("orders", "commands")
        await publisher.declare(work(rig.names, arguments))
        before = Recorder()
        await doomed.consume(queue, before, prefetch=10)
        await publish(publisher, to(rig.names.commands), b"a", b"b", b"c")
        await before.reaches(3)

        await rig.kill(doomed)

        after = Recorder(settle=ack)
        await publisher.consume(queue, after, prefetch=10)
        await after.reaches(3)
        assert sorted(after.bodies) == [b"a", b"b", b"c"]
        assert all(delivery.redelivered for delivery in after.deliveries)
        counts = {delivery.delivery_count for delivery in after.deliveries}
        assert counts == ({1} if arguments else {0})

    async def test_survivor_takes_over_from_a_crashed_consumer(self, rig: Rig) -> None:
        publisher, doomed, survivor = [await rig.transport() for _ in range(3)]
        queue = rig.names.queue("orders", "commands")
        await publisher.declare(work(rig.names))
        held, handled = Recorder(), Recorder(settle=ack)
        await doomed.consume(queue, held, prefetch=5)
        await survivor.consume(queue, handled, prefetch=5)
        await publish(publisher, to(rig.names.commands), *(b"%d" % number for number in range(50)))
        await held.reaches(5)
        await handled.reaches(45)

        await rig.kill(doomed)

        await handled.reaches(50)
        assert sorted(handled.bodies) == sorted(b"%d" % number for number in range(50))
        assert sorted(handled.bodies[45:]) == sorted(held.bodies)

    async def test_rejects_beyond_the_delivery_limit_dead_letter(self, rig: Rig) -> None:
        transport = await rig.transport()
        dead = Recorder(settle=ack)
        await transport.declare(dlx(rig.names) + work(rig.names, _limited(rig)))
        await transport.consume(rig.names.queue("orders", "dead"), dead, prefetch=10)
        recorder = Recorder(settle=reject)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await publish(transport, to(rig.names.commands), b"poison")

        (letter,) = await dead.reaches(1)
        assert letter.body == b"poison"
        assert (letter.exchange, letter.routing_key) == (
            rig.names.undeliverable_exchange("orders"),
            to(rig.names.commands).routing_key,
        )
        expected = Death(queue=rig.names.queue("orders", "commands"), reason="delivery_limit", count=1)
        assert letter.deaths == (expected,)
        assert [delivery.delivery_count for delivery in recorder.deliveries] == [0, 1, 2]

    async def test_crashes_beyond_the_delivery_limit_dead_letter(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(dlx(rig.names) + work(rig.names, _limited(rig)))
        dead = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "dead"), dead, prefetch=10)
        await publish(transport, to(rig.names.commands), b"poison")

        for _ in range(3):
            doomed, recorder = await rig.transport(), Recorder()
            await doomed.consume(queue, recorder, prefetch=10)
            await recorder.reaches(1)
            await rig.kill(doomed)

        (letter,) = await dead.reaches(1)
        assert letter.body == b"poison"
        assert [death.reason for death in letter.deaths] == ["delivery_limit"]

    async def test_cancelled_consumer_gets_nothing_more_and_may_still_settle(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        subscription = await transport.consume(queue, recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"held")
        (delivery,) = await recorder.reaches(1)

        await subscription.cancel()
        await subscription.cancel()
        await publish(transport, to(rig.names.commands), b"later", first=1)
        delivery.ack()

        await eventually_depth(transport, queue, 1)
        await holds(lambda: len(recorder) == 1, what="a cancelled consumer gets nothing")
        assert not subscription.is_live
        await transport.aclose()
        await eventually_depth(await rig.transport(), queue, 1)
        assert transport.state.dropped_acks == 0

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


def _limited(rig: Rig) -> dict[str, Argument]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2,
        "x-dead-letter-exchange": rig.names.undeliverable_exchange("orders"),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
