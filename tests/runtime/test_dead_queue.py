"""A pass over a dead-letter queue, in slices: what it sees, what it holds, and what goes back."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from messaging.core.dead_letter import DeadLetter
from messaging.core.fault import Fault
from messaging.core.topology import Names, Topology
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.runtime import dead_queue
from messaging.runtime.dead_queue import DeadQueue, Found
from messaging.transports.base import Delivery, QueueDepth, Subscription
from messaging.transports.memory import MemoryBroker, MemoryTransport
from tests.support.ambient import REAL
from tests.transports.rig import dlx

NAMES = Names("messaging")
QUEUE = NAMES.queue("orders", "dead")


def read(delivery: Delivery) -> DeadLetter:
    return DeadLetter(
        id=delivery.body[:8].decode(), service="orders", is_verified=True, fault=Fault(error="E", reason="r")
    )


class Dead:
    """A dead-letter queue with some letters, numbered."""

    def __init__(self, count: int, *, size_bytes: int = 8) -> None:
        self.broker = MemoryBroker()
        self.transport = MemoryTransport(self.broker, ambient=REAL)
        self.count = count
        self.body: Callable[[int], bytes] = lambda number: b"%08d" % number + b"." * (size_bytes - 8)
        self.prefetches: list[int] = []

    async def __aenter__(self) -> "Dead":
        await self.transport.connect()
        topology: Topology = dlx(NAMES)
        await self.transport.declare(topology)
        self.add(*range(self.count))
        consume = self.transport.consume

        async def counted(queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
            self.prefetches.append(prefetch)
            return await consume(queue, on_delivery, prefetch=prefetch)

        self.transport.consume = counted  # type: ignore[method-assign, assignment]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.aclose()

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.broker.inject(NAMES.undeliverable_exchange("orders"), "", self.body(number))

    def reading(self) -> AbstractAsyncContextManager[DeadQueue]:
        return DeadQueue.reading(self.transport, QUEUE, service="orders", read=read)

    @property
    def left(self) -> list[int]:
        return [int(body[:8]) for body in self.broker.bodies(QUEUE)]

    @property
    def held(self) -> int:
        return self.broker.loads()[QUEUE].unsettled


def settle(found: Found) -> None:
    found.take()
    found.settle()


async def test_every_letter_is_seen_once_and_given_back_at_the_end() -> None:
    async with Dead(300) as dead:
        async with dead.reading() as queue:
            seen = [int(found.letter.id) async for found in queue.letters()]
            assert dead.held == 300

        assert seen == list(range(300))
        assert dead.held == 0
        assert dead.left == list(range(300))


async def test_what_is_settled_is_gone_and_the_rest_keeps_its_order() -> None:
    async with Dead(300) as dead:
        async with dead.reading() as queue:
            async for found in queue.letters():
                if int(found.letter.id) % 3 == 0:
                    settle(found)

        assert dead.left == [number for number in range(300) if number % 3]


async def test_no_more_is_held_in_memory_than_a_slice() -> None:
    async with Dead(1_000, size_bytes=40_000) as dead:
        async with dead.reading() as queue:
            assert len([found async for found in queue.letters()]) == 1_000

        # The first slice learns the size of letters, the later ones are as long as fit into 16 MiB.
        assert dead.prefetches[0] == 64
        assert all(size * 40_000 <= 16 * 1024 * 1024 for size in dead.prefetches)
        assert sum(dead.prefetches) >= 1_000


async def test_a_slice_goes_on_while_what_it_brings_is_settled() -> None:
    async with Dead(500) as dead:
        async with dead.reading() as queue:
            async for found in queue.letters():
                settle(found)

        assert dead.prefetches == [64]
        assert dead.left == []


async def test_a_letter_that_was_taken_and_kept_after_all_stays() -> None:
    async with Dead(100) as dead:
        async with dead.reading() as queue:
            async for found in queue.letters():
                found.take()
                found.keep()

        assert dead.left == list(range(100))


async def test_what_comes_in_meanwhile_is_for_the_next_pass() -> None:
    async with Dead(10) as dead:
        seen = []
        async with dead.reading() as queue:
            async for found in queue.letters():
                seen.append(int(found.letter.id))
                settle(found)
                dead.add(100 + seen[-1])

        assert seen == list(range(10))
        assert dead.left == [100 + number for number in range(10)]
        assert dead.held == 0


async def test_whoever_stops_early_gives_everything_back() -> None:
    async with Dead(200) as dead:
        async with dead.reading() as queue:
            letters = queue.letters()
            async for found in letters:
                if int(found.letter.id) == 5:
                    break
            await letters.aclose()

        assert dead.left == list(range(200))
        assert dead.held == 0


async def test_an_empty_queue_is_read_without_a_consumer() -> None:
    async with Dead(0) as dead, dead.reading() as queue:
        assert [found async for found in queue.letters()] == []
        assert dead.prefetches == []


async def test_a_missing_queue_is_named() -> None:
    transport = MemoryTransport(MemoryBroker(), ambient=REAL)
    await transport.connect()

    with pytest.raises(ConfigurationError, match="no dead-letter queue of 'orders'"):
        async with DeadQueue.reading(transport, QUEUE, service="orders", read=read):
            pass
    await transport.aclose()


async def test_letters_that_somebody_else_has_taken_meanwhile_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_queue, "_QUIET_S", 0.01)
    async with Dead(3) as dead:
        queue = DeadQueue(dead.transport, QUEUE, depth=9, read=read)

        assert len([found async for found in queue.letters()]) == 3
        await queue.aclose()


async def test_letters_that_are_overtaken_by_the_depth_of_the_queue_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_queue, "_QUIET_S", 0.1)
    async with Dead(1) as dead:
        consume, late = dead.transport.consume, list[Delivery]()
        seen = asyncio.Event()

        async def held_back(queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
            async def bring() -> None:
                await seen.wait()
                on_delivery(late.pop())

            bringing.append(asyncio.create_task(bring()))
            return await consume(queue, late.append, prefetch=prefetch)

        async def emptied(_: str) -> QueueDepth:
            seen.set()
            return QueueDepth(messages=0, consumers=1)

        bringing: list[asyncio.Task[None]] = []
        dead.transport.consume = held_back  # type: ignore[method-assign, assignment]
        dead.transport.depth = emptied  # type: ignore[method-assign, assignment]
        queue = DeadQueue(dead.transport, QUEUE, depth=1, read=read)

        assert len([found async for found in queue.letters()]) == 1


@pytest.mark.parametrize("returns", [True, False])
async def test_a_broker_that_stands_still_while_letters_go_back_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    monkeypatch.setattr(dead_queue, "_RETURN_STALLED_S", 0.0)
    monkeypatch.setattr(dead_queue, "_RETURN_POLL_S", 0.0)
    asked = 0
    async with Dead(3) as dead:

        async def stalled(_: str) -> QueueDepth:
            nonlocal asked
            asked += 1
            return QueueDepth(messages=3 if returns and asked > 30 else 0, consumers=0)

        async with dead.reading() as queue:
            assert len([found async for found in queue.letters()]) == 3
            dead.transport.depth = stalled  # type: ignore[method-assign, assignment]

    assert asked == (31 if returns else 51)


async def test_a_broker_that_brings_nothing_of_what_it_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_queue, "_QUIET_S", 0.01)
    monkeypatch.setattr(dead_queue, "_STALLED_S", 0.03)
    async with Dead(1) as dead:

        async def claimed(_: str) -> QueueDepth:
            return QueueDepth(messages=5, consumers=0)

        dead.transport.depth = claimed  # type: ignore[method-assign, assignment]
        queue = DeadQueue(dead.transport, QUEUE, depth=6, read=read)

        with pytest.raises(ConnectionLostError, match="holds 5 more letters"):
            _ = [found async for found in queue.letters()]
        await queue.aclose()
        assert dead.left == [0]
