"""Conformance: what becomes of a delivery when it is settled, and when its consumer ends."""

import pytest

from messaging.core.topology import Argument
from messaging.transports.base import Death
from tests.support.waiting import holds
from tests.transports.rig import KEY, Recorder, Rig, ack, dlx, eventually_depth, publish, reject, to, work

QUEUE_TYPES = pytest.mark.parametrize(
    "arguments", [{"x-queue-type": "quorum", "x-delivery-limit": 100}, {}], ids=["quorum", "classic"]
)


class SettlingCases:
    """Cases of settling and of consumers that end."""

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
    async def test_count_that_a_publisher_claims_is_not_believed(
        self, rig: Rig, arguments: dict[str, Argument]
    ) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, arguments))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await rig.inject(rig.names.commands, KEY, b"forged", headers={"x-delivery-count": 50})

        (delivery,) = await recorder.reaches(1)
        assert (delivery.redelivered, delivery.delivery_count) == (False, 0)

    async def test_count_of_the_broker_replaces_the_claimed_one(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        await rig.inject(rig.names.commands, KEY, b"forged", headers={"x-delivery-count": 50})

        (await recorder.reaches(1))[0].reject()

        assert (await recorder.reaches(2))[1].delivery_count == 1

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

    async def test_what_a_cancelled_consumer_holds_returns_in_order_when_it_is_released(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}))
        await publish(transport, to(rig.names.commands), *(b"%d" % number for number in range(6)))
        recorder = Recorder()
        subscription = await transport.consume(queue, recorder, prefetch=10)
        deliveries = await recorder.reaches(6)
        deliveries[0].ack()
        deliveries[3].ack()

        await subscription.cancel()
        await subscription.release()
        deliveries[1].ack()

        await eventually_depth(transport, queue, 4)
        after = Recorder()
        await transport.consume(queue, after, prefetch=10)
        assert [delivery.body for delivery in await after.reaches(4)] == [b"1", b"2", b"4", b"5"]


def _limited(rig: Rig) -> dict[str, Argument]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2,
        "x-dead-letter-exchange": rig.names.undeliverable_exchange("orders"),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
