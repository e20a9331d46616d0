"""Queues of the memory broker: what waits, who holds what, and when something is given up. No clock and no event loop.

Rules, as RabbitMQ has them:

1. A message goes to the next consumer in turn that has room; what one has not settled counts against its prefetch.
2. A message comes back to its old place. In a quorum queue a reject or the end of its consumer counts, and beyond the
   delivery limit it is given up; giving it back does not count. Without a limit it comes back to the tail.
3. Life in the queue ends at the head only: a short-lived message waits behind a long-lived one.
4. A full queue drops its oldest ready message, or refuses the newest; what is delivered and unsettled does not count.
5. What is given up goes to the dead-letter exchange, when there is one. Where that must happen at least once, it stays
   until every queue there took it: tried again every three minutes, at most 32 at a time, the rest behind them.
6. With a single active consumer the first that came is fed alone, and the next only once it has gone: after what it
   held came back when its channel ended, but at once when it was merely stopped.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from messaging.core.topology import Argument
from messaging.transports.memory.parcel import Entry, Limits, Parcel

__all__ = ["Deliver", "MemoryConsumer", "MemoryQueue", "Settlement"]

# RabbitMQ's dead_letter_worker_consumer_prefetch and dead_letter_worker_publisher_confirm_timeout (docs/topology.md).
BURIALS_MAX: Final = 32
BURIAL_RETRY_MS: Final = 180_000

Bury = Callable[["MemoryQueue", Parcel, str, set[str]], bool]
"""Routes a dead letter of the queue for a reason; adds the queues that took it to the set; tells whether all did."""


Deliver = Callable[["MemoryConsumer", Entry], None]
"""Takes each entry of a consumer; a plain call that must not settle it at once."""


class Settlement(Enum):
    """What a consumer says about a delivery."""

    ACK = "ack"
    REJECT = "reject"
    GIVE_BACK = "give back"


@dataclass(slots=True, eq=False)
class MemoryConsumer:
    """One consumer on a channel of its own.

    Attributes:
        queue: What it reads.
        prefetch: Bound of unsettled deliveries; 0 is none.
        deliver: Takes each entry.
        unsettled: Entries that it holds, by position.
        is_open: Whether its channel still carries settlements.
        is_fed: Whether it gets deliveries.
    """

    queue: "MemoryQueue"
    prefetch: int
    deliver: Deliver
    unsettled: dict[int, Entry] = field(default_factory=dict)
    is_open: bool = True
    is_fed: bool = True

    @property
    def has_room(self) -> bool:
        """Whether one more delivery fits into the prefetch."""
        return self.prefetch == 0 or len(self.unsettled) < self.prefetch


@dataclass(slots=True, eq=False)
class _Burial:
    """A dead letter on its way, with the queues that took it already."""

    parcel: Parcel
    reason: str
    taken_by: set[str] = field(default_factory=set)


class MemoryQueue:
    """One queue.

    Args:
        name: Its name.
        arguments: Its declaration.
        now_ms: The broker's clock.
        bury: Routes what it gives up.
        on_change: Called after each change, so that the broker can look at `due_ms`.

    Raises:
        TopologyConflictError: The broker refuses an argument.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Argument],
        *,
        now_ms: Callable[[], int],
        bury: Bury,
        on_change: Callable[["MemoryQueue"], None],
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.limits = Limits.of(name, arguments)
        self._now_ms = now_ms
        self._bury = bury
        self._on_change = on_change
        self._ready: deque[Entry] = deque()
        self._ready_bytes = 0
        self._next_position = 0
        self._turn: deque[MemoryConsumer] = deque()
        self._channels: set[MemoryConsumer] = set()
        self._unused_since_ms = now_ms()
        self._stuck: list[_Burial] = []
        self._stuck_until_ms = 0
        self._behind_stuck: deque[_Burial] = deque()

    # What it holds.

    @property
    def ready(self) -> int:
        """Messages that wait for a consumer."""
        return len(self._ready)

    @property
    def unsettled(self) -> int:
        """Messages that consumers hold."""
        return sum(len(consumer.unsettled) for consumer in self._channels)

    @property
    def burials(self) -> int:
        """Dead letters that could not be delivered yet and stay here until they are."""
        return len(self._stuck) + len(self._behind_stuck)

    @property
    def consumers(self) -> int:
        """Consumers that it feeds; RabbitMQ does not count those that stand by either."""
        return min(1, len(self._turn)) if self.limits.is_single_active else len(self._turn)

    def parcels(self) -> list[Parcel]:
        """Return everything in it in the order of the queue, held by consumers or not."""
        held = [entry for consumer in self._channels for entry in consumer.unsettled.values()]
        return [entry.parcel for entry in sorted([*held, *self._ready], key=lambda entry: entry.position)]

    # Time.

    def due_ms(self) -> int | None:
        """Return when something happens by itself: the head expires, a burial is tried again, or the queue goes."""
        dues = []
        if self._ready and self._ready[0].expires_at_ms is not None:
            dues.append(self._ready[0].expires_at_ms)
        if self._stuck:
            dues.append(self._stuck_until_ms)
        if (gone_ms := self._gone_at_ms()) is not None:
            dues.append(gone_ms)
        return min(dues, default=None)

    def is_forgotten(self) -> bool:
        """Tell whether nobody used it for as long as `x-expires` allows."""
        gone_ms = self._gone_at_ms()
        return gone_ms is not None and gone_ms <= self._now_ms()

    def run_due(self) -> None:
        """Do what is due by the broker's clock."""
        self._expire()
        if self._stuck and self._stuck_until_ms <= self._now_ms():
            self._behind_stuck.extendleft(reversed(self._stuck))
            self._stuck = []
            self._bury_waiting()
        self._on_change(self)

    def touch(self) -> None:
        """Note that somebody uses the queue: a declaration counts."""
        self._unused_since_ms = self._now_ms()
        self._on_change(self)

    def _gone_at_ms(self) -> int | None:
        if self.limits.expires_ms is None or self._turn:
            return None
        return self._unused_since_ms + self.limits.expires_ms

    # In and out.

    def put(self, parcel: Parcel) -> bool:
        """Take a message and tell whether it was taken; a full queue that rejects takes none."""
        entry = Entry(parcel, self._next_position, self._expiry_of(parcel))
        consumer = None if self._ready else self._next_in_turn()
        if consumer is not None:
            self._next_position += 1
            self._hand(entry, consumer)
            return True
        if self.limits.is_rejecting and self._is_over(1, len(parcel.body)):
            return False
        self._next_position += 1
        self._ready.append(entry)
        self._ready_bytes += len(parcel.body)
        self._drop_excess()
        self._feed()
        self._on_change(self)
        return True

    def open(self, deliver: Deliver, *, prefetch: int) -> MemoryConsumer:
        """Add a consumer and feed it."""
        consumer = MemoryConsumer(self, prefetch, deliver)
        self._turn.append(consumer)
        self._channels.add(consumer)
        self._feed()
        self._on_change(self)
        return consumer

    def widen(self, consumer: MemoryConsumer, prefetch: int) -> None:
        """Give a consumer more room."""
        consumer.prefetch = prefetch
        self._feed()
        self._on_change(self)

    def stop(self, consumer: MemoryConsumer) -> None:
        """Feed the consumer no more; what it holds stays its own."""
        self._retire(consumer)
        self._feed()
        self._on_change(self)

    def close(self, consumer: MemoryConsumer) -> None:
        """End the consumer and its channel: what it holds comes back, and that counts."""
        self._retire(consumer)
        consumer.is_open = False
        self._channels.discard(consumer)
        held, consumer.unsettled = list(consumer.unsettled.values()), {}
        # From the last: each goes to the head of those behind it, which is the cheap way into an ordered queue.
        for entry in reversed(held):
            self._return(entry, is_counted=True)
        self._feed()
        self._on_change(self)

    def drop(self) -> None:
        """End every consumer with everything it holds: the queue is deleted."""
        for consumer in self._channels:
            consumer.is_open = consumer.is_fed = False
            consumer.unsettled.clear()
        self._channels.clear()
        self._turn.clear()
        self._ready.clear()
        self._ready_bytes = 0

    def settle(self, consumer: MemoryConsumer, entry: Entry, how: Settlement) -> None:
        """Settle one delivery; what the consumer does not hold is left alone."""
        if consumer.unsettled.get(entry.position) is not entry:
            return
        del consumer.unsettled[entry.position]
        self._forget_idle(consumer)
        if how is not Settlement.ACK:
            self._return(entry, is_counted=how is Settlement.REJECT)
        self._feed()
        self._on_change(self)

    # Inside.

    def _retire(self, consumer: MemoryConsumer) -> None:
        if consumer.is_fed:
            consumer.is_fed = False
            self._turn.remove(consumer)
            self._forget_idle(consumer)
            self.touch()

    def _forget_idle(self, consumer: MemoryConsumer) -> None:
        if not consumer.is_fed and not consumer.unsettled:
            self._channels.discard(consumer)

    def _expiry_of(self, parcel: Parcel) -> int | None:
        lives = [life for life in (parcel.expiration_ms, self.limits.ttl_ms) if life is not None]
        return self._now_ms() + min(lives) if lives else None

    def _is_over(self, messages: int, size_bytes: int) -> bool:
        """Tell whether the bounds would be passed with so much more."""
        length_max, bytes_max = self.limits.length_max, self.limits.bytes_max
        return (length_max is not None and len(self._ready) + messages > length_max) or (
            bytes_max is not None and self._ready_bytes + size_bytes > bytes_max
        )

    def _drop_excess(self) -> None:
        while not self.limits.is_rejecting and self._ready and self._is_over(0, 0):
            self._give_up(self._take(), "maxlen")

    def _expire(self) -> None:
        now_ms = self._now_ms()
        while self._ready:
            expires_at_ms = self._ready[0].expires_at_ms
            if expires_at_ms is None or expires_at_ms > now_ms:
                return
            self._give_up(self._take(), "expired")

    def _feed(self) -> None:
        self._expire()
        while self._ready and (consumer := self._next_in_turn()) is not None:
            self._hand(self._take(), consumer)
            self._expire()

    def _hand(self, entry: Entry, consumer: MemoryConsumer) -> None:
        consumer.unsettled[entry.position] = entry
        consumer.deliver(consumer, entry)

    def _next_in_turn(self) -> MemoryConsumer | None:
        if self.limits.is_single_active:
            return self._turn[0] if self._turn and self._turn[0].has_room else None
        for _ in range(len(self._turn)):
            consumer = self._turn[0]
            self._turn.rotate(-1)
            if consumer.has_room:
                return consumer
        return None

    def _take(self) -> Entry:
        entry = self._ready.popleft()
        self._ready_bytes -= len(entry.parcel.body)
        return entry

    def _return(self, entry: Entry, *, is_counted: bool) -> None:
        limit = self.limits.delivery_limit
        count = entry.delivery_count + int(self.limits.is_quorum and is_counted)
        if limit is not None and count > limit:
            self._give_up(entry, "delivery_limit")
            return
        position = entry.position
        if self.limits.is_quorum and limit is None:
            position, self._next_position = self._next_position, self._next_position + 1
        back = replace(entry, position=position, delivery_count=count, redelivered=True)
        place = next((n for n, other in enumerate(self._ready) if other.position > position), len(self._ready))
        self._ready.insert(place, back)
        self._ready_bytes += len(back.parcel.body)
        self._drop_excess()

    def _give_up(self, entry: Entry, reason: str) -> None:
        if self.limits.dead_letter_exchange is None:
            return
        burial = _Burial(entry.parcel, reason)
        if self.limits.is_at_least_once:
            self._behind_stuck.append(burial)
            self._bury_waiting()
        else:
            self._bury(self, burial.parcel, burial.reason, burial.taken_by)

    def _bury_waiting(self) -> None:
        while self._behind_stuck and len(self._stuck) < BURIALS_MAX:
            burial = self._behind_stuck.popleft()
            if not self._bury(self, burial.parcel, burial.reason, burial.taken_by):
                if not self._stuck:
                    self._stuck_until_ms = self._now_ms() + BURIAL_RETRY_MS
                self._stuck.append(burial)
