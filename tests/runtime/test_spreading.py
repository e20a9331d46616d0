"""Partitions are handed over until each replica has its share."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from messaging.errors import ConnectionLostError
from messaging.runtime.spreading import Spreading
from messaging.testing.clock import FixedClock
from messaging.transports.base import QueueDepth
from tests.runtime.test_partitions import Book, Ledger, beside
from tests.support.logs import Logs
from tests.support.stage import Stage
from tests.support.waiting import eventually


@dataclass
class Part:
    """A partition that notes when it is handed over."""

    queue: str
    is_fed: bool = True
    is_waiting: bool = False
    running: int = 0
    handed_over: int = 0

    def hand_over(self) -> None:
        self.handed_over += 1


@dataclass
class Counted:
    """Tells how many replicas there are, or fails so many times."""

    replicas: int | None
    failures: int = 0
    asked: list[str] = field(default_factory=list)

    async def depth(self, queue: str) -> QueueDepth | None:
        self.asked.append(queue)
        if self.failures:
            self.failures -= 1
            raise ConnectionLostError("no connection")
        return None if self.replicas is None else QueueDepth(messages=0, consumers=self.replicas)


def spreading(parts: list[Part], replicas: int | None, clock: FixedClock | None = None) -> Spreading:
    transport: Any = Counted(replicas)
    return Spreading(parts, home="home", transport=transport, ambient=(clock or FixedClock()).ambient)


def parts(count: int, **values: Any) -> list[Part]:
    return [Part(queue=f"p{number}", **values) for number in range(count)]


@pytest.mark.parametrize(
    ("fed", "replicas", "moved"),
    [(8, 1, 0), (8, 2, 2), (8, 3, 3), (8, 8, 4), (4, 2, 0), (3, 3, 0), (4, 3, 1), (1, 8, 0), (8, None, 0), (8, 0, 0)],
)
async def test_half_of_what_is_too_much_is_handed_over(fed: int, replicas: int | None, moved: int) -> None:
    eight = parts(8)
    for part in eight[fed:]:
        part.is_fed = False

    assert await spreading(eight, replicas).look() == moved

    assert sum(part.handed_over for part in eight) == moved


async def test_idle_ones_go_first_and_those_that_wait_for_a_try_stay() -> None:
    four = parts(4)
    four[0].running, four[1].is_waiting, four[2].running = 5, True, 1

    assert await spreading(four, 4).look() == 2

    assert [part.handed_over for part in four] == [0, 0, 1, 1]


async def test_what_came_back_stays_for_a_minute(logs: Logs) -> None:
    clock, two = FixedClock(), parts(2)
    replica = spreading(two, 2, clock)

    moved = [await replica.look() for _ in range(3)]
    clock.advance(60_000)
    moved.append(await replica.look())

    assert moved == [1, 1, 0, 1]
    assert logs.events.count("partition.handed_over") == 3


async def test_broker_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.runtime.spreading._LOOK_EVERY_S", 0.001)
    two, transport = parts(2), Counted(2, failures=1)
    replica: Any = Spreading(two, home="home", transport=transport, ambient=FixedClock().ambient)  # type: ignore[arg-type]

    running = asyncio.create_task(replica.run())
    await eventually(lambda: sum(part.handed_over for part in two) >= 1)
    running.cancel()

    assert transport.asked[:2] == ["home", "home"]


async def test_two_replicas_come_to_share_the_work_and_keep_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.runtime.spreading._LOOK_EVERY_S", 0.002)
    monkeypatch.setattr("messaging.runtime.spreading._AGAIN_S", -1.0)
    first, second = Ledger(partitions=4), Ledger(partitions=4)
    accounts = [f"account-{number}" for number in range(16)]

    async with Stage(first.service) as stage, beside(stage, second.service):
        sent = 0
        while not (first.done and second.done) or sent < 20:
            for account in accounts:
                await stage.send(Book(account=account, number=sent), sender="users")
            sent += 1
            await asyncio.sleep(0.002)
        await stage.settled()
        await eventually(lambda: len(first.done) + len(second.done) == sent * len(accounts))

    for account in accounts:
        # Each handed its part over whole: none has a gap that the other one would have had to fill in between.
        assert sorted(first.of(account) + second.of(account)) == list(range(sent))
        assert first.of(account) == sorted(first.of(account))
        assert second.of(account) == sorted(second.of(account))
