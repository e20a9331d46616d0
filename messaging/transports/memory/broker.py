"""`MemoryBroker`: a message broker in process, that does what RabbitMQ does with what `messaging` asks of it.

One broker, any number of transports (`messaging.transports.memory`). Nothing is kept when the process ends.

Time: the broker has no clock of its own. Every transport brings the time of its `Ambient`, and the broker keeps the
latest it has seen. What is due by itself (an expired message, a rung of the ladder, an unused queue) happens

- on the event loop's timers, by default;
- in `advance_to`, when the broker was made with `is_manual=True`: a test moves its fixed clock and the broker's as one.

      while (due_ms := broker.next_due_ms()) is not None and due_ms <= target_ms:
          clock.now_ms = due_ms
          await broker.advance_to(due_ms)      # and let the services work before the next step
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from messaging.core.topology import Binding, Exchange, Queue, Topology
from messaging.errors import TopologyConflictError
from messaging.transports.base import QueueDepth
from messaging.transports.memory.parcel import Parcel
from messaging.transports.memory.queue import Deliver, MemoryConsumer, MemoryQueue
from messaging.transports.memory.routing import MemoryExchange

__all__ = ["MemoryBroker", "QueueLoad", "Receipt"]

# RabbitMQ's default max_message_size.
BODY_MAX_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one publish.

    Attributes:
        taken_by: Queues that have their copy.
        refused_by: Queues that were full and refuse.
    """

    taken_by: tuple[str, ...]
    refused_by: tuple[str, ...]

    @property
    def is_routed(self) -> bool:
        """Whether it reached a queue at all."""
        return bool(self.taken_by or self.refused_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLoad:
    """What is under way in one queue.

    Attributes:
        ready: Messages that wait.
        unsettled: Messages that consumers hold.
        burials: Dead letters that wait for their queue to have room.
        consumers: Consumers that it feeds.
        due_ms: When something happens by itself, by the broker's clock; None is never.
    """

    ready: int
    unsettled: int
    burials: int
    consumers: int
    due_ms: int | None


class MemoryBroker:
    """The broker.

    Args:
        is_manual: Whether only `advance_to` makes time pass, for tests with a fixed clock.
        body_max_bytes: Largest body that it accepts.
    """

    def __init__(self, *, is_manual: bool = False, body_max_bytes: int = BODY_MAX_BYTES) -> None:
        self.body_max_bytes = body_max_bytes
        self._is_manual = is_manual
        self._now_ms = 0
        self._exchanges: dict[str, MemoryExchange] = {}
        self._queues: dict[str, MemoryQueue] = {}
        self._locks: dict[str, object] = {}
        self._due_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: list[Callable[[], None]] = []
        self._answers = asyncio.Event()
        self._answers.set()

    # What exists.

    def declare(self, topology: Topology) -> None:
        """Make it exist: exchanges, queues, bindings, in this order. What exists already is compared.

        Raises:
            TopologyConflictError: Something exists with other arguments, or a binding names what does not exist.
        """
        for exchange in topology.exchanges:
            self._declare_exchange(exchange)
        for queue in topology.queues:
            self._declare_queue(queue)
        for binding in topology.bindings:
            self._bind(binding)

    def _declare_exchange(self, exchange: Exchange) -> None:
        known = self._exchanges.get(exchange.name)
        if known is None:
            self._exchanges[exchange.name] = MemoryExchange(exchange)
            return
        before = {"type": known.declared.type, **known.declared.arguments}
        _compare(f"exchange {exchange.name!r}", before, {"type": exchange.type, **exchange.arguments})

    def _declare_queue(self, queue: Queue) -> None:
        if queue.name in self._locks:
            raise TopologyConflictError(f"queue {queue.name!r} is a lock that somebody holds; wait until it is free")
        known = self._queues.get(queue.name)
        if known is None:
            self._queues[queue.name] = known = MemoryQueue(
                queue.name, queue.arguments, now_ms=self.now_ms, bury=self._bury, on_change=self._note_due
            )
        classic = {"x-queue-type": "classic"}
        _compare(f"queue {queue.name!r}", {**classic, **known.arguments}, {**classic, **queue.arguments})
        known.touch()

    def _bind(self, binding: Binding) -> None:
        self.queue(binding.queue)
        self.exchange(binding.exchange).bind(binding.queue, binding.routing_key)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, if it is there."""
        if (found := self._exchanges.get(binding.exchange)) is not None:
            found.unbind(binding.queue, binding.routing_key)

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue.

        Raises:
            TopologyConflictError: There is none of this name.
        """
        if (found := self._queues.get(name)) is None:
            raise TopologyConflictError(f"no queue {name!r}; declare it first or correct its name")
        return found

    def exchange(self, name: str) -> MemoryExchange:
        """Return an exchange.

        Raises:
            TopologyConflictError: There is none of this name.
        """
        if (found := self._exchanges.get(name)) is None:
            raise TopologyConflictError(f"no exchange {name!r}; declare it first or correct its name")
        return found

    def delete(self, queue: str) -> None:
        """Delete a queue with everything in it; its consumers get nothing more. Twice is once."""
        found = self._queues.pop(queue, None)
        if found is not None:
            found.drop()
            for exchange in self._exchanges.values():
                exchange.forget(queue)

    # Locks.

    def acquire(self, name: str, holder: object) -> None:
        """Give the name to the holder alone.

        Raises:
            TopologyConflictError: It is taken, by whomever.
        """
        if name in self._locks or name in self._queues:
            raise TopologyConflictError(f"lock {name!r} is held; wait until its holder is done or gone")
        self._locks[name] = holder

    def release(self, holder: object, name: str | None = None) -> None:
        """Take a name from its holder, or all it holds."""
        for held in [lock for lock, owner in self._locks.items() if owner is holder and name in {None, lock}]:
            del self._locks[held]

    # Messages.

    def publish(self, parcel: Parcel) -> Receipt:
        """Put the parcel into every queue that its exchange and key reach.

        Raises:
            TopologyConflictError: There is no such exchange.
        """
        taken: list[str] = []
        refused: list[str] = []
        for name in self._reached(self.exchange(parcel.exchange), parcel.routing_key):
            (taken if self._queues[name].put(parcel) else refused).append(name)
        return Receipt(taken_by=tuple(taken), refused_by=tuple(refused))

    def inject(
        self, exchange: str, routing_key: str, body: bytes, *, headers: Mapping[str, object] | None = None
    ) -> Receipt:
        """Publish as a foreign client would: any bytes, any headers, no properties.

        Raises:
            TopologyConflictError: There is no such exchange.
        """
        parcel = Parcel(body=body, exchange=exchange, routing_key=routing_key, headers=dict(headers or {}))
        return self.publish(parcel)

    def consume(self, queue: str, deliver: Deliver, *, prefetch: int) -> MemoryConsumer:
        """Open a consumer.

        Raises:
            TopologyConflictError: There is no such queue.
        """
        return self.queue(queue).open(deliver, prefetch=prefetch)

    def _reached(self, exchange: MemoryExchange, routing_key: str) -> tuple[str, ...]:
        """Return the queues that the key reaches, through alternate exchanges if it must be."""
        visited: set[str] = set()
        while True:
            visited.add(exchange.declared.name)
            found = exchange.reached_by(routing_key)
            alternate = self._exchanges.get(exchange.declared.alternate or "")
            if found or alternate is None or alternate.declared.name in visited:
                return found
            exchange = alternate

    def _bury(self, queue: MemoryQueue, parcel: Parcel, reason: str, taken_by: set[str]) -> bool:
        exchange = self._exchanges.get(queue.limits.dead_letter_exchange or "")
        if exchange is None:
            return False
        letter = parcel.buried(
            queue.name, reason, exchange=exchange.declared.name, routing_key=queue.limits.dead_letter_key
        )
        reached = self._reached(exchange, letter.routing_key)
        for name in reached:
            # A dropped cycle counts as taken: it is over.
            if name not in taken_by and (letter.is_cycle(name) or self._queues[name].put(letter)):
                taken_by.add(name)
        return bool(reached) and taken_by.issuperset(reached)

    # Time.

    def now_ms(self) -> int:
        """Return the latest time that it has seen, Unix milliseconds."""
        return self._now_ms

    def observe(self, now_ms: int) -> None:
        """Take note of the time, and do what is due by it. A clock that goes back is not followed."""
        self._now_ms = max(self._now_ms, now_ms)
        if self._due_ms is not None and self._due_ms <= self._now_ms and self._answers.is_set():
            self._run_due()

    def next_due_ms(self) -> int | None:
        """Return when the next thing happens by itself, or None when nothing will."""
        return min((due for queue in self._queues.values() if (due := queue.due_ms()) is not None), default=None)

    async def advance_to(self, now_ms: int) -> None:
        """Let time pass, one due thing after the other, each followed by a turn of the event loop.

        Args:
            now_ms: Unix milliseconds; a time that has passed changes nothing.
        """
        while (due_ms := self.next_due_ms()) is not None and due_ms <= now_ms and self._answers.is_set():
            self._now_ms = max(self._now_ms, due_ms)
            self._run_due()
            await asyncio.sleep(0)
        self.observe(now_ms)
        await asyncio.sleep(0)

    def _run_due(self) -> None:
        self._due_ms = None
        for queue in list(self._queues.values()):
            due_ms = queue.due_ms()
            if due_ms is None:
                continue
            if queue.is_forgotten():
                self.delete(queue.name)
            elif due_ms <= self._now_ms:
                queue.run_due()
            else:
                self._note_due(queue)

    def _note_due(self, queue: MemoryQueue) -> None:
        due_ms = queue.due_ms()
        if due_ms is None or (self._due_ms is not None and self._due_ms <= due_ms and self._is_armed()):
            return
        self._due_ms = due_ms
        if self._is_manual:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop = asyncio.get_running_loop()
        delay_s = max(0, due_ms - self._now_ms) / 1000
        self._timer = self._loop.call_later(delay_s, self._on_timer, due_ms)

    def _is_armed(self) -> bool:
        """Tell whether what is due will happen: a timer of an event loop that has ended never fires."""
        return self._is_manual or self._loop is asyncio.get_running_loop()

    def _on_timer(self, due_ms: int) -> None:
        self._timer = None
        self.observe(due_ms)

    # A broker that does not answer.

    @asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        """Stop answering while inside: what transports send is kept and done afterwards, in order."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()
            held, self._held = self._held, []
            for act in held:
                act()
            self.observe(self._now_ms)

    def submit(self, act: Callable[[], None]) -> None:
        """Do what a transport sent: now, or when the broker answers again."""
        if self._answers.is_set():
            act()
        else:
            self._held.append(act)

    async def round_trip(self) -> None:
        """Wait for the broker's answer; it takes at least a turn of the event loop, as over a network."""
        await asyncio.sleep(0)
        await self._answers.wait()

    # What a test or a health check sees.

    def depth(self, queue: str) -> QueueDepth | None:
        """Return ready messages and consumers, or None when there is no such queue."""
        found = self._queues.get(queue)
        return None if found is None else QueueDepth(messages=found.ready, consumers=found.consumers)

    def bodies(self, queue: str) -> list[bytes]:
        """Return the bytes in a queue in their order, those that consumers hold included.

        Raises:
            TopologyConflictError: There is no such queue.
        """
        return [parcel.body for parcel in self.queue(queue).parcels()]

    def loads(self) -> dict[str, QueueLoad]:
        """Return what is under way, by queue."""
        return {
            name: QueueLoad(
                ready=queue.ready,
                unsettled=queue.unsettled,
                burials=queue.burials,
                consumers=queue.consumers,
                due_ms=queue.due_ms(),
            )
            for name, queue in self._queues.items()
        }

    def is_idle(self, *, with_delays: bool = False, resting: Mapping[str, int] = MappingProxyType({})) -> bool:
        """Tell whether nothing is under way: no message is held, and none waits for a consumer that exists.

        Args:
            with_delays: Whether messages on their way back through a delay count as under way too.
            resting: Queue → how many messages its consumer holds that merely wait; what is behind them waits too.
        """
        return not self._held and not any(
            _is_busy(queue, with_delays=with_delays)
            for queue in self._queues.values()
            if not queue.unsettled or queue.unsettled > resting.get(queue.name, 0)
        )


def _is_busy(queue: MemoryQueue, *, with_delays: bool) -> bool:
    is_delay = queue.limits.ttl_ms is not None and queue.limits.dead_letter_exchange is not None
    waiting = queue.ready if queue.consumers or (with_delays and is_delay) else 0
    return bool(waiting or queue.unsettled or (with_delays and queue.burials))


def _compare(what: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse a declaration that differs from what exists.

    Raises:
        TopologyConflictError: It differs; the message lists each argument with both values.
    """
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        listed = "; ".join(f"{key} is {before.get(key)!r}, declared as {now.get(key)!r}" for key in differing)
        raise TopologyConflictError(f"{what} exists with other arguments: {listed}. Declare it as it is, or delete it")
