"""Conformance: queues with a single active consumer, and in which order messages come back to them."""

from messaging.core.topology import SINGLE_ACTIVE, Argument, Topology
from messaging.transports.base import QueueDepth, Transport
from tests.support.waiting import eventually, holds
from tests.transports.rig import LIMIT_S, Recorder, Rig, ack, eventually_depth, publish, to, work

PREFETCH = 4
QUORUM: dict[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": 100, SINGLE_ACTIVE: True}


class SingleActiveCases:
    """Cases of one consumer at a time. Order survives failures as long as all consumers have the same prefetch."""

    async def test_one_consumer_is_fed_and_the_other_stands_by(self, rig: Rig) -> None:
        first, second = await _two(rig)
        active, standby = Recorder(settle=ack), Recorder(settle=ack)
        await first.consume(_queue(rig), active, prefetch=PREFETCH)
        subscription = await second.consume(_queue(rig), standby, prefetch=PREFETCH)

        await publish(first, to(rig.names.commands), *_bodies(20))

        await active.reaches(20)
        assert active.bodies == _bodies(20)
        await holds(lambda: len(standby) == 0, what="the standby gets nothing")
        assert subscription.is_live

    async def test_consumers_that_stand_by_are_not_counted(self, rig: Rig) -> None:
        first, second = await _two(rig)

        await first.consume(_queue(rig), Recorder(), prefetch=PREFETCH)
        await second.consume(_queue(rig), Recorder(), prefetch=PREFETCH)

        assert await first.depth(_queue(rig)) == QueueDepth(messages=0, consumers=1)

    async def test_standby_takes_over_from_a_crashed_consumer_in_order(self, rig: Rig) -> None:
        publisher, doomed, standby = await rig.transport(), *await _two(rig)
        held, after = Recorder(), Recorder(settle=ack)
        await doomed.consume(_queue(rig), held, prefetch=PREFETCH)
        await standby.consume(_queue(rig), after, prefetch=PREFETCH)
        await publish(publisher, to(rig.names.commands), *_bodies(10))
        await held.reaches(PREFETCH)

        await rig.kill(doomed)

        await after.reaches(10)
        assert after.bodies == _bodies(10)

    async def test_order_survives_one_failure_after_the_other(self, rig: Rig) -> None:
        publisher = await rig.transport()
        await publisher.declare(_partition(rig))
        await publish(publisher, to(rig.names.commands), *_bodies(10))

        for _ in range(3):
            doomed, held = await rig.transport(), Recorder()
            await doomed.consume(_queue(rig), held, prefetch=PREFETCH)
            await held.reaches(PREFETCH)
            await rig.kill(doomed)

        after = Recorder(settle=ack)
        await publisher.consume(_queue(rig), after, prefetch=PREFETCH)
        await after.reaches(10)
        assert after.bodies == _bodies(10)

    async def test_released_consumer_returns_the_unsettled_in_order(self, rig: Rig) -> None:
        publisher, leaving, standby = await rig.transport(), *await _two(rig)
        held, after = Recorder(), Recorder(settle=ack)
        subscription = await leaving.consume(_queue(rig), held, prefetch=PREFETCH)
        await standby.consume(_queue(rig), after, prefetch=PREFETCH)
        await publish(publisher, to(rig.names.commands), *_bodies(10))
        deliveries = list(await held.reaches(PREFETCH))
        deliveries[1].ack()

        await subscription.release()
        await subscription.release()

        await after.reaches(9)
        assert after.bodies == [body for body in _bodies(10) if body != b"1"]
        assert not subscription.is_live
        await eventually_depth(publisher, _queue(rig), 0)

    async def test_next_consumer_overtakes_what_a_cancelled_one_still_holds(self, rig: Rig) -> None:
        publisher, leaving, standby = await rig.transport(), *await _two(rig)
        held, after = Recorder(), Recorder()
        subscription = await leaving.consume(_queue(rig), held, prefetch=PREFETCH)
        await standby.consume(_queue(rig), after, prefetch=PREFETCH)
        await publish(publisher, to(rig.names.commands), *_bodies(10))
        await held.reaches(PREFETCH)

        await subscription.cancel()

        await after.reaches(PREFETCH)
        assert after.bodies == _bodies(10)[PREFETCH : 2 * PREFETCH]

    async def test_lost_channel_is_told_before_its_messages_come_again(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(_partition(rig))
        seen: list[bytes] = []
        await transport.consume(
            _queue(rig),
            lambda delivery: seen.append(delivery.body),
            prefetch=PREFETCH,
            on_lost=lambda: seen.append(b"lost"),
        )
        await publish(transport, to(rig.names.commands), *_bodies(2))
        await eventually(lambda: len(seen) == 2, LIMIT_S, what="both were delivered")

        await rig.cut(transport)

        await eventually(lambda: len(seen) == 5, LIMIT_S, what="both came again")
        assert seen == [b"0", b"1", b"lost", b"0", b"1"]


def _bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def _queue(rig: Rig) -> str:
    return rig.names.queue("orders", "commands")


def _partition(rig: Rig) -> Topology:
    return work(rig.names, QUORUM)


async def _two(rig: Rig) -> tuple[Transport, Transport]:
    first, second = await rig.transport(), await rig.transport()
    await first.declare(_partition(rig))
    await second.declare(_partition(rig))
    return first, second
