from dataclasses import dataclass, field

from messaging.core.topology import Argument
from messaging.transports.memory.parcel import Entry, Parcel
from messaging.transports.memory.queue import BURIAL_RETRY_MS, BURIALS_MAX, MemoryConsumer, MemoryQueue, Settlement

QUORUM: dict[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": 2}
RUNG: dict[str, Argument] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 100,
    "x-message-ttl": 100,
    "x-dead-letter-exchange": "dlx",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@dataclass
class Surroundings:
    """The broker around one queue: its clock, and the cemetery."""

    now_ms: int = 1_000
    is_taking: bool = True
    buried: list[tuple[bytes, str]] = field(default_factory=list)
    refused: int = 0

    def bury(self, queue: MemoryQueue, parcel: Parcel, reason: str, taken_by: set[str]) -> bool:
        if self.is_taking:
            self.buried.append((parcel.body, reason))
            taken_by.add("dead")
        else:
            self.refused += 1
        return self.is_taking

    def queue(self, arguments: dict[str, Argument] | None = None) -> MemoryQueue:
        return MemoryQueue(
            "q", arguments or {}, now_ms=lambda: self.now_ms, bury=self.bury, on_change=lambda queue: None
        )


@dataclass
class Taker:
    """A consumer's end: keeps what it is given."""

    entries: list[Entry] = field(default_factory=list)

    def __call__(self, consumer: MemoryConsumer, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def bodies(self) -> list[bytes]:
        return [entry.parcel.body for entry in self.entries]


def parcel(body: bytes, *, expiration_ms: int | None = None) -> Parcel:
    return Parcel(body=body, exchange="e", routing_key="k", expiration_ms=expiration_ms)


def fill(queue: MemoryQueue, *bodies: bytes) -> None:
    for body in bodies:
        assert queue.put(parcel(body))


def test_messages_go_to_consumers_in_turn() -> None:
    queue, one, two = Surroundings().queue(), Taker(), Taker()
    queue.open(one, prefetch=0)
    queue.open(two, prefetch=0)

    fill(queue, b"1", b"2", b"3", b"4", b"5")

    assert (one.bodies, two.bodies) == ([b"1", b"3", b"5"], [b"2", b"4"])


def test_consumer_without_room_is_passed_over() -> None:
    queue, full, free = Surroundings().queue(), Taker(), Taker()
    queue.open(full, prefetch=1)
    queue.open(free, prefetch=3)

    fill(queue, b"1", b"2", b"3", b"4", b"5")

    assert (full.bodies, free.bodies) == ([b"1"], [b"2", b"3", b"4"])
    assert (queue.ready, queue.unsettled, queue.consumers) == (1, 4, 2)


def test_returned_message_takes_its_old_place() -> None:
    queue, taker = Surroundings().queue(QUORUM), Taker()
    consumer = queue.open(taker, prefetch=3)
    fill(queue, b"1", b"2", b"3", b"4", b"5")
    queue.stop(consumer)

    for entry in (taker.entries[2], taker.entries[0], taker.entries[1]):
        queue.settle(consumer, entry, Settlement.GIVE_BACK)

    assert [kept.body for kept in queue.parcels()] == [b"1", b"2", b"3", b"4", b"5"]
    again = Taker()
    queue.open(again, prefetch=0)
    assert again.bodies == [b"1", b"2", b"3", b"4", b"5"]
    assert [entry.redelivered for entry in again.entries] == [True, True, True, False, False]


def test_quorum_queue_without_a_limit_returns_to_the_tail() -> None:
    queue, taker = Surroundings().queue({"x-queue-type": "quorum"}), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2", b"3")
    queue.stop(consumer)

    queue.settle(consumer, taker.entries[0], Settlement.REJECT)

    assert [kept.body for kept in queue.parcels()] == [b"2", b"3", b"1"]


def test_rejecting_counts_and_giving_back_does_not() -> None:
    queue, taker = Surroundings().queue(QUORUM), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"x")

    for how in (Settlement.GIVE_BACK, Settlement.REJECT, Settlement.GIVE_BACK, Settlement.REJECT):
        queue.settle(consumer, taker.entries[-1], how)

    assert [entry.delivery_count for entry in taker.entries] == [0, 0, 1, 1, 2]


def test_beyond_the_delivery_limit_it_is_given_up() -> None:
    around = Surroundings()
    queue, taker = around.queue({**QUORUM, "x-dead-letter-exchange": "dlx"}), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"poison", b"next")

    for _ in range(3):
        queue.settle(consumer, taker.entries[-1], Settlement.REJECT)

    assert around.buried == [(b"poison", "delivery_limit")]
    assert taker.bodies == [b"poison"] * 3 + [b"next"]


def test_delivery_limit_without_dead_letters_ends_the_message() -> None:
    around = Surroundings()
    queue = around.queue(QUORUM)
    fill(queue, b"x")

    for _ in range(3):
        queue.close(queue.open(Taker(), prefetch=1))

    assert (queue.ready, around.buried) == (0, [])


def test_end_of_a_consumer_returns_all_it_held_in_order_and_counts() -> None:
    queue, doomed, survivor = Surroundings().queue(QUORUM), Taker(), Taker()
    consumer = queue.open(doomed, prefetch=3)
    fill(queue, b"1", b"2", b"3", b"4")

    queue.close(consumer)
    queue.open(survivor, prefetch=0)

    assert survivor.bodies == [b"1", b"2", b"3", b"4"]
    assert [entry.delivery_count for entry in survivor.entries] == [1, 1, 1, 0]
    assert not consumer.is_open


def test_settlement_of_what_is_not_held_changes_nothing() -> None:
    queue, taker = Surroundings().queue(QUORUM), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2")
    first = taker.entries[0]
    queue.settle(consumer, first, Settlement.REJECT)

    queue.settle(consumer, first, Settlement.ACK)

    assert taker.bodies == [b"1", b"1"]
    assert queue.unsettled == 1


def test_stopped_consumer_still_settles() -> None:
    queue, taker = Surroundings().queue(), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2")

    queue.stop(consumer)
    queue.stop(consumer)
    queue.settle(consumer, taker.entries[0], Settlement.ACK)

    assert (taker.bodies, queue.ready, queue.unsettled, queue.consumers) == ([b"1"], 1, 0, 0)


def test_wider_consumer_is_fed_at_once() -> None:
    queue, taker = Surroundings().queue(), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2", b"3")

    queue.widen(consumer, 0)

    assert taker.bodies == [b"1", b"2", b"3"]


def test_message_lives_as_long_as_the_shorter_of_both_lives() -> None:
    around = Surroundings()
    queue = around.queue({"x-message-ttl": 100, "x-dead-letter-exchange": "dlx"})
    queue.put(parcel(b"brief", expiration_ms=40))
    queue.put(parcel(b"long", expiration_ms=400))

    dues = [queue.due_ms()]
    around.now_ms += 40
    queue.run_due()
    dues.append(queue.due_ms())
    around.now_ms += 60
    queue.run_due()

    assert dues == [1_040, 1_100]
    assert around.buried == [(b"brief", "expired"), (b"long", "expired")]
    assert queue.due_ms() is None


def test_short_life_waits_behind_a_long_one() -> None:
    around = Surroundings()
    queue = around.queue({"x-dead-letter-exchange": "dlx"})
    queue.put(parcel(b"long", expiration_ms=100))
    queue.put(parcel(b"brief", expiration_ms=10))

    around.now_ms += 50
    queue.run_due()
    before = list(around.buried)
    around.now_ms += 50
    queue.run_due()

    assert before == []
    assert around.buried == [(b"long", "expired"), (b"brief", "expired")]


def test_expired_message_is_never_delivered() -> None:
    around, taker = Surroundings(), Taker()
    queue = around.queue()
    queue.put(parcel(b"stale", expiration_ms=10))
    queue.put(parcel(b"fresh"))
    around.now_ms += 10

    queue.open(taker, prefetch=0)

    assert taker.bodies == [b"fresh"]


def test_full_queue_drops_its_head_and_refuses_only_when_told() -> None:
    around = Surroundings()
    dropping = around.queue({"x-max-length": 2, "x-dead-letter-exchange": "dlx"})
    rejecting = around.queue({"x-max-length": 2, "x-overflow": "reject-publish"})

    taken = [(dropping.put(parcel(body)), rejecting.put(parcel(body))) for body in (b"1", b"2", b"3")]

    assert taken == [(True, True), (True, True), (True, False)]
    assert around.buried == [(b"1", "maxlen")]
    assert [kept.body for kept in dropping.parcels()] == [b"2", b"3"]
    assert [kept.body for kept in rejecting.parcels()] == [b"1", b"2"]


def test_what_consumers_hold_does_not_fill_the_queue() -> None:
    queue = Surroundings().queue({"x-max-length": 1, "x-overflow": "reject-publish"})
    queue.open(Taker(), prefetch=2)

    taken = [queue.put(parcel(body)) for body in (b"held", b"held too", b"ready", b"too many")]

    assert taken == [True, True, True, False]


def test_bytes_of_ready_messages_are_bounded() -> None:
    queue, taker = Surroundings().queue({"x-max-length-bytes": 10, "x-overflow": "reject-publish"}), Taker()
    taken = [queue.put(parcel(bytes(size))) for size in (6, 5, 4, 1)]

    queue.open(taker, prefetch=1)
    after = queue.put(parcel(bytes(6)))

    assert taken == [True, False, True, False]
    assert after


def test_returned_messages_do_not_overfill_a_dropping_queue() -> None:
    around, taker = Surroundings(), Taker()
    queue = around.queue({"x-max-length": 1, "x-dead-letter-exchange": "dlx"})
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2")

    queue.close(consumer)

    assert around.buried == [(b"1", "maxlen")]
    assert [kept.body for kept in queue.parcels()] == [b"2"]


def test_dead_letter_that_nobody_takes_stays_and_is_tried_again() -> None:
    around = Surroundings(is_taking=False)
    queue = around.queue(RUNG)
    fill(queue, b"x")
    around.now_ms += 100
    queue.run_due()
    stuck = (queue.burials, queue.due_ms(), around.refused)

    around.now_ms += BURIAL_RETRY_MS
    queue.run_due()
    still_stuck = (queue.burials, around.refused)
    around.is_taking = True
    around.now_ms += BURIAL_RETRY_MS
    queue.run_due()

    assert stuck == (1, 1_100 + BURIAL_RETRY_MS, 1)
    assert still_stuck == (1, 2)
    assert around.buried == [(b"x", "expired")]
    assert (queue.burials, queue.due_ms()) == (0, None)


def test_stuck_dead_letters_block_those_behind_them() -> None:
    around = Surroundings(is_taking=False)
    queue = around.queue(RUNG)
    bodies = [b"%d" % number for number in range(BURIALS_MAX + 8)]
    fill(queue, *bodies)

    around.now_ms += 100
    queue.run_due()
    tried = around.refused
    around.is_taking = True
    fill(queue, b"neighbour")
    around.now_ms += 100
    queue.run_due()
    blocked = list(around.buried)
    around.now_ms += BURIAL_RETRY_MS
    queue.run_due()

    assert tried == BURIALS_MAX
    assert blocked == []
    assert [body for body, _ in around.buried] == [*bodies, b"neighbour"]


def test_at_most_once_dead_letter_that_nobody_takes_is_lost() -> None:
    around = Surroundings(is_taking=False)
    queue = around.queue({"x-message-ttl": 10, "x-dead-letter-exchange": "dlx"})
    fill(queue, b"x")

    around.now_ms += 10
    queue.run_due()

    assert (queue.burials, queue.ready, around.refused) == (0, 0, 1)


def test_queue_is_forgotten_when_nobody_used_it_long_enough() -> None:
    around = Surroundings()
    queue = around.queue({"x-expires": 100})
    consumer = queue.open(Taker(), prefetch=1)
    used = queue.due_ms()

    around.now_ms += 500
    queue.stop(consumer)
    due_ms = queue.due_ms()
    around.now_ms += 99
    early = queue.is_forgotten()
    around.now_ms += 1

    assert used is None
    assert due_ms == 1_600
    assert not early
    assert queue.is_forgotten()


def test_declaring_again_counts_as_use() -> None:
    around = Surroundings()
    queue = around.queue({"x-expires": 100})
    around.now_ms += 60

    queue.touch()

    assert queue.due_ms() == 1_160


def test_dropped_queue_ends_its_consumers() -> None:
    queue, taker = Surroundings().queue(), Taker()
    consumer = queue.open(taker, prefetch=1)
    fill(queue, b"1", b"2")

    queue.drop()

    assert not consumer.is_open
    assert (queue.ready, queue.unsettled, queue.consumers) == (0, 0, 0)
