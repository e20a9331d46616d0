from collections.abc import Callable
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from messaging.transports.amqp.arrival import Received
from messaging.transports.amqp.feed import Feed, Surroundings
from messaging.transports.amqp.settlements import How
from messaging.transports.base import Delivery
from tests.support.ambient import REAL


class FakeChannel:
    """Keeps what was settled, as long as it is open."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, How]] = []
        self.is_closed = False
        self.unsaid_settlements = 0

    def settle(self, tag: int, how: How) -> bool:
        if not self.is_closed:
            self.settled.append((tag, how))
        return not self.is_closed

    async def aclose(self) -> None:
        self.is_closed = True


class Bench:
    """A feed with all around it."""

    def __init__(self, prefetch: int) -> None:
        self.queue = "queue"
        self.prefetch = prefetch
        self.taken: list[Delivery] = []
        self.on_delivery: Callable[[Delivery], None] = self.taken.append
        self.dropped = 0
        self.channel = FakeChannel()
        unused: Any = None
        around = Surroundings(
            link=unused,
            ambient=REAL,
            outlet=unused,
            declare=unused,
            consumers_of=lambda _: 1,
            note_dropped=self._note_dropped,
        )
        channel: Any = self.channel
        self.feed = Feed(channel, self, around)

    def arrive(self, *tags: int) -> None:
        for tag in tags:
            header = ContentHeader(properties=Basic.Properties(), body_size=1)
            delivery = Basic.Deliver("tag", tag, False, "ex", "key")
            message = DeliveredMessage(delivery=delivery, header=header, body=b"%d" % tag, channel=None)  # type: ignore[arg-type]
            self.feed.take(Received(message))

    def _note_dropped(self, count: int) -> None:
        self.dropped += count


def test_hands_over_up_to_the_bound_and_goes_on_when_there_is_room() -> None:
    bench = Bench(prefetch=2)

    bench.arrive(1, 2, 3, 4)
    assert [delivery.body for delivery in bench.taken] == [b"1", b"2"]
    bench.taken[1].ack()

    assert [delivery.body for delivery in bench.taken] == [b"1", b"2", b"3"]
    assert bench.channel.settled == [(2, How.ACK)]
    assert bench.feed.unsettled == 2


def test_bound_of_zero_is_none() -> None:
    bench = Bench(prefetch=0)

    bench.arrive(*range(1, 101))

    assert len(bench.taken) == 100


def test_one_who_settles_at_once_gets_all_in_order() -> None:
    bench = Bench(prefetch=1)
    bench.on_delivery = lambda delivery: delivery.ack()

    bench.arrive(1, 2, 3)

    assert bench.channel.settled == [(1, How.ACK), (2, How.ACK), (3, How.ACK)]
    assert bench.feed.unsettled == 0


def test_stopped_feed_gives_back_what_nobody_got() -> None:
    bench = Bench(prefetch=1)
    bench.arrive(1, 2, 3)

    bench.feed.stop()
    bench.arrive(4)

    assert len(bench.taken) == 1
    assert bench.channel.settled == [(2, How.GIVE_BACK), (3, How.GIVE_BACK), (4, How.GIVE_BACK)]
    bench.taken[0].ack()
    assert bench.channel.settled[-1] == (1, How.ACK)
    assert len(bench.taken) == 1


def test_released_feed_leaves_everything_to_the_end_of_its_channel() -> None:
    bench = Bench(prefetch=1)
    bench.arrive(1, 2, 3)

    bench.feed.release()
    bench.arrive(4)

    assert len(bench.taken) == 1
    assert bench.channel.settled == []


async def test_settling_after_the_end_is_counted_and_brings_nothing_more() -> None:
    bench = Bench(prefetch=1)
    bench.arrive(1, 2)
    bench.channel.unsaid_settlements = 3

    await bench.feed.aclose()
    bench.taken[0].ack()

    assert bench.dropped == 3 + 1
    assert len(bench.taken) == 1
