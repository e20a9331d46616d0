import asyncio

import pytest

from messaging.core.topology import Names
from messaging.errors import ConnectionLostError, TopologyConflictError
from messaging.testing.clock import FixedClock
from messaging.transports.memory.broker import MemoryBroker, Receipt
from messaging.transports.memory.link import LinkEndedError, MemoryLink
from messaging.transports.memory.parcel import Entry, Parcel
from messaging.transports.memory.queue import MemoryConsumer, Settlement
from tests.transports.rig import KEY, rung, work

NAMES = Names("t")
COMMANDS = NAMES.queue("orders", "commands")


class Joined:
    """A broker with one link, and a count of what came too late."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.broker = MemoryBroker(is_manual=True)
        self.broker.observe(self.clock.now_ms())
        self.broker.declare(work(NAMES))
        self.dropped = 0
        self.link = self.another()

    def another(self) -> MemoryLink:
        return MemoryLink(self.broker, now_ms=self.clock.now_ms, on_dropped=self._drop)

    def _drop(self) -> None:
        self.dropped += 1


@pytest.fixture
def joined() -> Joined:
    return Joined()


def parcel(exchange: str = NAMES.commands, body: bytes = b"x") -> Parcel:
    return Parcel(body=body, exchange=exchange, routing_key=KEY)


def keep(consumer: MemoryConsumer, entry: Entry) -> None:
    """Hold what is delivered."""


async def test_confirm_comes_after_the_call(joined: Joined) -> None:
    future = joined.link.publish(parcel())
    was_done = future.done()

    receipt = await future

    assert not was_done
    assert receipt == Receipt(taken_by=(COMMANDS,), refused_by=())
    assert joined.link.unconfirmed == set()


async def test_publishes_take_effect_in_the_order_of_their_calls(joined: Joined) -> None:
    futures = [joined.link.publish(parcel(body=b"%d" % number)) for number in range(5)]

    await asyncio.gather(*futures)

    assert joined.broker.bodies(COMMANDS) == [b"0", b"1", b"2", b"3", b"4"]


async def test_missing_exchange_fails_its_own_publish_only(joined: Joined) -> None:
    lost, kept = joined.link.publish(parcel("absent")), joined.link.publish(parcel())

    outcomes = await asyncio.gather(lost, kept, return_exceptions=True)

    assert isinstance(outcomes[0], TopologyConflictError)
    assert isinstance(outcomes[1], Receipt)


async def test_blind_publish_bears_anything(joined: Joined) -> None:
    joined.link.publish_blindly(parcel("absent"))
    joined.link.publish_blindly(parcel())

    assert joined.broker.bodies(COMMANDS) == [b"x"]


async def test_caller_that_gave_up_does_not_stop_the_message(joined: Joined) -> None:
    future = joined.link.publish(parcel())
    lost = joined.link.publish(parcel("absent"))
    future.cancel()
    lost.cancel()

    await asyncio.sleep(0)

    assert joined.broker.bodies(COMMANDS) == [b"x"]


async def test_end_fails_what_is_unconfirmed_and_returns_what_is_unsettled(joined: Joined) -> None:
    await joined.link.publish(parcel())
    consumer = joined.link.consume(COMMANDS, keep, prefetch=1)
    joined.broker.acquire("lock", joined.link)
    future = joined.link.publish(parcel(body=b"y"))

    joined.link.end(ConnectionLostError("closed"))

    with pytest.raises(ConnectionLostError):
        await future
    assert not consumer.is_open
    depth = joined.broker.depth(COMMANDS)
    assert depth is not None
    assert (depth.messages, depth.consumers) == (2, 0)
    joined.broker.acquire("lock", joined.another())


async def test_end_of_a_link_to_a_stalled_broker_takes_effect_when_it_answers(joined: Joined) -> None:
    await joined.link.publish(parcel())
    consumer = joined.link.consume(COMMANDS, keep, prefetch=1)

    async with joined.broker.stalled():
        future = joined.link.publish(parcel(body=b"sent before the end"))
        joined.link.end(LinkEndedError("cut"))
        held = len(consumer.unsettled)

    with pytest.raises(LinkEndedError):
        await future
    assert held == 1
    assert joined.broker.bodies(COMMANDS) == [b"x", b"sent before the end"]


async def test_late_settlement_is_counted_and_dropped(joined: Joined) -> None:
    await joined.link.publish(parcel())
    consumer = joined.link.consume(COMMANDS, keep, prefetch=1)
    (entry,) = consumer.unsettled.values()
    joined.link.close(consumer)

    joined.link.settle(consumer, entry, Settlement.ACK)

    assert joined.dropped == 1
    assert joined.broker.bodies(COMMANDS) == [b"x"]


async def test_broker_learns_the_time_with_everything_that_is_sent(joined: Joined) -> None:
    joined.broker.declare(rung(NAMES, 100))
    await joined.link.publish(Parcel(body=b"x", exchange=NAMES.rung("orders", 100), routing_key=COMMANDS))

    joined.clock.advance(100)
    joined.link.publish_blindly(parcel(body=b"y"))

    assert joined.broker.now_ms() == joined.clock.now_ms()
    assert joined.broker.bodies(COMMANDS) == [b"x", b"y"]


async def test_link_forgets_consumers_that_are_done(joined: Joined) -> None:
    for _ in range(20):
        joined.link.stop(joined.link.consume(COMMANDS, keep, prefetch=1))

    assert len(joined.link._consumers) == 1


async def test_stopped_consumer_that_still_holds_something_is_not_forgotten(joined: Joined) -> None:
    await joined.link.publish(parcel())
    joined.link.stop(joined.link.consume(COMMANDS, keep, prefetch=1))
    joined.link.stop(joined.link.consume(COMMANDS, keep, prefetch=1))

    joined.link.end(LinkEndedError("cut"))

    depth = joined.broker.depth(COMMANDS)
    assert depth is not None
    assert depth.messages == 1
