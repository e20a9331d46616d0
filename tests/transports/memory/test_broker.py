import asyncio

import pytest

from messaging.core.topology import Argument, Binding, Exchange, Names, Queue, Topology
from messaging.errors import TopologyConflictError
from messaging.transports.base import Death
from messaging.transports.memory.broker import MemoryBroker, QueueLoad, Receipt
from messaging.transports.memory.parcel import Entry, Parcel
from messaging.transports.memory.queue import MemoryConsumer, Settlement
from tests.support.waiting import eventually
from tests.transports.rig import KEY, dlx, fanout, rung, work

NAMES = Names("t")
COMMANDS = NAMES.queue("orders", "commands")
START_MS = 1_700_000_000_000


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker(is_manual=True)
    broker.observe(START_MS)
    return broker


def parcel(exchange: str, key: str, body: bytes = b"x") -> Parcel:
    return Parcel(body=body, exchange=exchange, routing_key=key)


def keep(consumer: MemoryConsumer, entry: Entry) -> None:
    """Hold what is delivered."""


# What exists.


def test_declaring_again_keeps_what_waits(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES))
    broker.inject(NAMES.commands, KEY, b"kept")

    broker.declare(work(NAMES))

    assert broker.bodies(COMMANDS) == [b"kept"]


def test_classic_is_what_a_queue_is_without_saying(broker: MemoryBroker) -> None:
    broker.declare(Topology(queues=(Queue(name="q"),)))

    broker.declare(Topology(queues=(Queue(name="q", arguments={"x-queue-type": "classic"}),)))


def test_conflict_lists_every_difference(broker: MemoryBroker) -> None:
    broker.declare(Topology(queues=(Queue(name="q", arguments={"x-max-length": 1, "x-message-ttl": 5}),)))

    with pytest.raises(TopologyConflictError) as caught:
        broker.declare(Topology(queues=(Queue(name="q", arguments={"x-max-length": 2, "x-expires": 9}),)))

    message = str(caught.value)
    assert "x-expires is None, declared as 9" in message
    assert "x-max-length is 1, declared as 2" in message
    assert "x-message-ttl is 5, declared as None" in message


def test_exchange_with_another_alternate_is_a_conflict(broker: MemoryBroker) -> None:
    broker.declare(Topology(exchanges=(Exchange(name="e", type="direct", alternate="a"),)))

    with pytest.raises(TopologyConflictError, match=r"'e'.*alternate-exchange is 'a', declared as None"):
        broker.declare(Topology(exchanges=(Exchange(name="e", type="direct"),)))


@pytest.mark.parametrize(("exchange", "queue", "missing"), [("e", "absent", "queue"), ("absent", "q", "exchange")])
def test_binding_to_nothing_is_refused(broker: MemoryBroker, exchange: str, queue: str, missing: str) -> None:
    broker.declare(Topology(exchanges=(Exchange(name="e", type="topic"),), queues=(Queue(name="q"),)))

    with pytest.raises(TopologyConflictError, match=f"no {missing} 'absent'"):
        broker.declare(Topology(bindings=(Binding(exchange=exchange, queue=queue, routing_key=""),)))


def test_deleted_queue_is_reached_no_more(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES))
    broker.inject(NAMES.commands, KEY, b"gone")

    broker.delete(COMMANDS)
    broker.delete(COMMANDS)

    assert broker.depth(COMMANDS) is None
    assert not broker.inject(NAMES.commands, KEY, b"nowhere").is_routed
    with pytest.raises(TopologyConflictError, match="no queue"):
        broker.bodies(COMMANDS)


def test_name_of_a_lock_is_nobody_elses(broker: MemoryBroker) -> None:
    holder, other = object(), object()
    broker.acquire("q", holder)
    broker.acquire("r", holder)

    with pytest.raises(TopologyConflictError, match="'q' is held"):
        broker.acquire("q", other)
    with pytest.raises(TopologyConflictError, match="'q' is a lock"):
        broker.declare(Topology(queues=(Queue(name="q"),)))
    broker.release(other)
    broker.release(holder, "q")

    broker.acquire("q", other)
    with pytest.raises(TopologyConflictError, match="'r' is held"):
        broker.acquire("r", other)
    broker.release(holder)
    broker.acquire("r", other)


def test_lock_cannot_take_the_name_of_a_queue(broker: MemoryBroker) -> None:
    broker.declare(Topology(queues=(Queue(name="q"),)))

    with pytest.raises(TopologyConflictError, match="'q'"):
        broker.acquire("q", object())


# Messages.


def test_receipt_tells_who_took_and_who_refused(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES, {"x-max-length": 0, "x-overflow": "reject-publish"}) + work(NAMES, {}, service="users"))

    receipt = broker.publish(parcel(NAMES.commands, KEY))

    assert receipt == Receipt(taken_by=(NAMES.queue("users", "commands"),), refused_by=(COMMANDS,))
    assert receipt.is_routed


def test_alternates_that_point_at_one_another_end(broker: MemoryBroker) -> None:
    broker.declare(
        Topology(
            exchanges=(
                Exchange(name="a", type="direct", alternate="b"),
                Exchange(name="b", type="direct", alternate="a"),
                Exchange(name="c", type="direct", alternate="absent"),
            )
        )
    )

    assert not broker.publish(parcel("a", "k")).is_routed
    assert not broker.publish(parcel("c", "k")).is_routed


async def test_dead_letter_exchange_that_is_missing_loses_nothing_that_must_arrive(broker: MemoryBroker) -> None:
    topology = rung(NAMES, 100)
    commands, events = (NAMES.queue("orders", part) for part in ("commands", "events"))
    broker.declare(topology)
    broker.inject(NAMES.rung("orders", 100), "a.queue.that.went", b"homeless")
    broker.inject(NAMES.rung("orders", 100), commands, b"at home")

    await broker.advance_to(START_MS + 100)

    assert broker.bodies(commands) == [b"at home"]
    assert broker.loads()[NAMES.rung("orders", 100)].burials == 1
    broker.declare(
        Topology(
            bindings=(Binding(exchange=NAMES.return_exchange("orders"), queue=events, routing_key="a.queue.that.went"),)
        )
    )
    await broker.advance_to(START_MS + 300_000)
    assert broker.bodies(events) == [b"homeless"]


async def test_dead_letter_reaches_each_queue_once_though_one_was_full(broker: MemoryBroker) -> None:
    back = NAMES.return_exchange("orders")
    full: dict[str, Argument] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    broker.declare(
        rung(NAMES, 100)
        + Topology(
            queues=(Queue(name="full", arguments=full), Queue(name="free")),
            bindings=tuple(Binding(exchange=back, queue=queue, routing_key="both") for queue in ("full", "free")),
        )
    )
    broker.inject(back, "both", b"first")
    broker.inject(NAMES.rung("orders", 100), "both", b"late")

    await broker.advance_to(START_MS + 200)
    half = (broker.bodies("full"), broker.bodies("free"))
    consumer = broker.consume("full", keep, prefetch=1)
    (entry,) = consumer.unsettled.values()
    consumer.queue.settle(consumer, entry, Settlement.ACK)
    consumer.queue.stop(consumer)
    await broker.advance_to(START_MS + 400_000)

    assert half == ([b"first"], [b"first", b"late"])
    assert (broker.bodies("full"), broker.bodies("free")) == ([b"late"], [b"first", b"late"])


async def test_message_that_only_dies_in_circles_is_dropped(broker: MemoryBroker) -> None:
    broker.declare(fanout("round", "round", {"x-message-ttl": 10, "x-dead-letter-exchange": "round"}))
    broker.inject("round", "k", b"dizzy")

    await broker.advance_to(START_MS + 1_000)

    assert broker.bodies("round") == []
    assert broker.next_due_ms() is None


# Time.


async def test_manual_time_moves_only_by_hand(broker: MemoryBroker) -> None:
    broker.declare(rung(NAMES, 10))
    broker.inject(NAMES.rung("orders", 10), COMMANDS, b"x")

    await asyncio.sleep(0.05)
    untouched = broker.bodies(COMMANDS)
    await broker.advance_to(START_MS + 9)
    early = broker.bodies(COMMANDS)
    await broker.advance_to(START_MS + 10)

    assert (untouched, early, broker.bodies(COMMANDS)) == ([], [], [b"x"])
    assert broker.now_ms() == START_MS + 10


async def test_steps_of_time_come_in_order_and_each_at_its_own_hour(broker: MemoryBroker) -> None:
    broker.declare(dlx(NAMES) + rung(NAMES, 100) + rung(NAMES, 250))
    broker.declare(fanout("first", "first", {"x-message-ttl": 50, "x-dead-letter-exchange": NAMES.rung("orders", 100)}))
    broker.inject(NAMES.rung("orders", 250), COMMANDS, b"direct")
    broker.inject("first", COMMANDS, b"by two rungs")
    seen = []

    while (due_ms := broker.next_due_ms()) is not None:
        await broker.advance_to(due_ms)
        seen.append((due_ms - START_MS, len(broker.bodies(COMMANDS))))

    assert seen == [(50, 0), (150, 1), (250, 2)]
    assert broker.bodies(COMMANDS) == [b"by two rungs", b"direct"]


async def test_one_long_step_does_the_same(broker: MemoryBroker) -> None:
    broker.declare(rung(NAMES, 100))
    broker.declare(fanout("first", "first", {"x-message-ttl": 50, "x-dead-letter-exchange": NAMES.rung("orders", 100)}))
    broker.inject("first", COMMANDS, b"x")

    await broker.advance_to(START_MS + 10_000)

    assert broker.bodies(COMMANDS) == [b"x"]
    (kept,) = broker.queue(COMMANDS).parcels()
    assert kept.deaths == (
        Death(queue=NAMES.rung("orders", 100), reason="expired", count=1),
        Death(queue="first", reason="expired", count=1),
    )


async def test_time_that_goes_back_is_not_followed(broker: MemoryBroker) -> None:
    broker.declare(rung(NAMES, 100))
    broker.inject(NAMES.rung("orders", 100), COMMANDS, b"x")

    broker.observe(START_MS - 3_600_000)
    await broker.advance_to(START_MS - 5)

    assert broker.now_ms() == START_MS
    assert broker.next_due_ms() == START_MS + 100


def test_seeing_a_later_time_does_what_is_due(broker: MemoryBroker) -> None:
    broker.declare(rung(NAMES, 100))
    broker.inject(NAMES.rung("orders", 100), COMMANDS, b"x")

    broker.observe(START_MS + 100)

    assert broker.bodies(COMMANDS) == [b"x"]


async def test_unused_queue_is_deleted_when_its_time_comes(broker: MemoryBroker) -> None:
    broker.declare(fanout("replies", "replies", {"x-expires": 100}))
    broker.declare(fanout("kept", "kept", {"x-expires": 10_000}))

    await broker.advance_to(START_MS + 100)

    assert broker.depth("replies") is None
    assert broker.depth("kept") is not None
    assert broker.next_due_ms() == START_MS + 10_000


async def test_real_time_needs_no_hand() -> None:
    broker = MemoryBroker()
    broker.observe(START_MS)
    broker.declare(rung(NAMES, 20) + rung(NAMES, 60_000))
    broker.inject(NAMES.rung("orders", 60_000), COMMANDS, b"later")
    broker.inject(NAMES.rung("orders", 20), COMMANDS, b"soon")

    await eventually(lambda: bool(broker.bodies(COMMANDS)))

    assert broker.bodies(COMMANDS) == [b"soon"]
    assert broker.next_due_ms() == START_MS + 60_000


def test_broker_outlives_the_event_loop_it_began_in() -> None:
    broker = MemoryBroker()
    broker.observe(START_MS)

    async def begin() -> None:
        broker.declare(rung(NAMES, 60_000))
        broker.inject(NAMES.rung("orders", 60_000), COMMANDS, b"still there")

    async def go_on() -> list[bytes]:
        broker.declare(fanout("quick", "quick", {"x-message-ttl": 10, "x-dead-letter-exchange": "after"}))
        broker.declare(fanout("after", "after"))
        broker.inject("quick", "k", b"quick")
        await eventually(lambda: bool(broker.bodies("after")))
        return broker.bodies("after")

    asyncio.run(begin())

    assert asyncio.run(go_on()) == [b"quick"]
    assert broker.bodies(NAMES.rung("orders", 60_000)) == [b"still there"]


# A broker that does not answer.


async def test_stalled_broker_keeps_what_it_is_sent_in_order(broker: MemoryBroker) -> None:
    done = []

    async with broker.stalled():
        for number in range(3):
            broker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        during = list(done)
        waiting = asyncio.ensure_future(broker.round_trip())
        await asyncio.sleep(0.01)
        was_answered = waiting.done()
    await waiting

    assert during == []
    assert not was_answered
    assert done == [0, 1, 2]


async def test_time_stands_still_for_a_stalled_broker(broker: MemoryBroker) -> None:
    broker.declare(rung(NAMES, 100))
    broker.inject(NAMES.rung("orders", 100), COMMANDS, b"x")

    async with broker.stalled():
        await broker.advance_to(START_MS + 500)
        during = broker.bodies(COMMANDS)

    assert during == []
    assert broker.bodies(COMMANDS) == [b"x"]


# What a test sees.


def test_bodies_are_those_that_wait_and_those_that_are_held(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES))
    broker.consume(COMMANDS, keep, prefetch=2)

    for body in (b"1", b"2", b"3"):
        broker.inject(NAMES.commands, KEY, body)

    assert broker.bodies(COMMANDS) == [b"1", b"2", b"3"]


async def test_idle_is_when_nothing_is_held_and_nobody_waits_for_a_consumer(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES) + rung(NAMES, 100))
    states = [broker.is_idle()]

    broker.inject(NAMES.commands, KEY, b"x")
    states.append(broker.is_idle())  # nobody consumes: it may wait there for ever
    consumer = broker.consume(COMMANDS, keep, prefetch=1)
    states.append(broker.is_idle())
    (entry,) = consumer.unsettled.values()
    consumer.queue.settle(consumer, entry, Settlement.ACK)
    states.append(broker.is_idle())
    broker.inject(NAMES.rung("orders", 100), COMMANDS, b"delayed")
    states += [broker.is_idle(), broker.is_idle(with_delays=True)]
    await broker.advance_to(START_MS + 100)
    states.append(broker.is_idle())

    assert states == [True, True, False, True, True, False, False]


def test_loads_tell_what_is_under_way(broker: MemoryBroker) -> None:
    broker.declare(work(NAMES) + rung(NAMES, 100))
    broker.consume(COMMANDS, keep, prefetch=1)
    for exchange, key in [(NAMES.commands, KEY), (NAMES.commands, KEY), (NAMES.rung("orders", 100), COMMANDS)]:
        broker.inject(exchange, key, b"x")

    loads = broker.loads()

    assert loads[COMMANDS] == QueueLoad(ready=1, unsettled=1, burials=0, consumers=1, due_ms=None)
    assert loads[NAMES.rung("orders", 100)] == QueueLoad(
        ready=1, unsettled=0, burials=0, consumers=0, due_ms=START_MS + 100
    )


async def test_stall_ends_even_when_its_block_fails(broker: MemoryBroker) -> None:
    async def fail_inside() -> None:
        async with broker.stalled():
            raise LookupError

    with pytest.raises(LookupError):
        await fail_inside()

    async with asyncio.timeout(60):
        await broker.round_trip()
