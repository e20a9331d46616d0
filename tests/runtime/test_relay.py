import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest

from messaging.ambient import real_ambient
from messaging.core.sealed import Label, Route
from messaging.core.topology import Binding as Bound
from messaging.core.topology import Exchange, Queue, Topology
from messaging.errors import MessageTooLargeError
from messaging.runtime.relay import ATTEMPTS_MAX, LEASE_S, Relay
from messaging.stores.base import Claimed, StoreUnavailableError, Taker
from messaging.transports.memory import MemoryBroker, MemoryTransport
from tests.support.logs import Logs
from tests.support.waiting import LIMIT_S, eventually


class Rows:
    """An outbox in a list, with the port's methods."""

    def __init__(self, *rows: Claimed) -> None:
        self.waiting = list(rows)
        self.postponed: list[tuple[int, float]] = []
        self.parked: list[int] = []
        self.outages = 0
        self.released: list[int] = []
        self.defects = 0
        self.lease_s = 0.0

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[Claimed]:
        self.lease_s = lease_s
        if self.defects:
            self.defects -= 1
            raise RuntimeError("[parameters: what was to be written]")
        if self.outages:
            self.outages -= 1
            raise StoreUnavailableError("the database does not answer")
        return self.waiting[:limit]

    async def delete(self, rows: Sequence[Claimed]) -> None:
        ids = [row.id for row in rows]
        self.waiting = [row for row in self.waiting if row.id not in ids]

    async def release(self, ids: Sequence[int]) -> None:
        self.released += ids

    async def postpone(self, row: Claimed, *, delay_s: float, reason: str) -> None:
        self.waiting.remove(row)
        self.postponed.append((row.id, delay_s))

    async def park(self, row: Claimed, *, reason: str) -> None:
        self.waiting.remove(row)
        self.parked.append(row.id)

    async def depth(self) -> tuple[int, int]:
        return len(self.waiting), len(self.parked)


def a_row(
    number: int,
    key: str = "bound",
    *,
    mandatory: bool = True,
    attempts: int = 0,
    body: bytes = b"x",
    lane: str | None = None,
) -> Claimed:
    return Claimed(
        id=number,
        attempts=attempts,
        body=body,
        route=Route(exchange="t.commands", routing_key=key, mandatory=mandatory),
        label=Label(message_id=uuid4().hex, type="orders.place/1"),
        partition_key=lane,
    )


@pytest.fixture
async def transport() -> MemoryTransport:
    transport = MemoryTransport(MemoryBroker(body_max_bytes=1000), ambient=real_ambient())
    await transport.connect()
    await transport.declare(
        Topology(
            exchanges=(Exchange(name="t.commands", type="topic"),),
            queues=(Queue(name="q"),),
            bindings=(Bound(exchange="t.commands", queue="q", routing_key="bound"),),
        )
    )
    return transport


def a_relay(rows: Rows, transport: MemoryTransport) -> Relay:
    return Relay(rows, transport=transport, owner="me", timeout_s=LIMIT_S)


async def test_rows_leave_in_order_and_are_deleted_once_confirmed(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1, body=b"one"), a_row(2, body=b"two"))

    looked_at = await a_relay(rows, transport).relay_once()

    assert looked_at == 2
    assert rows.waiting == []
    assert transport.broker.bodies("q") == [b"one", b"two"]


async def test_a_command_that_nobody_handles_waits_longer_each_time(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1, "unbound"), a_row(2, "unbound", attempts=3), a_row(3, "unbound", attempts=50))

    await a_relay(rows, transport).relay_once()

    assert rows.postponed == [(1, 1.0), (2, 8.0), (3, 60.0)]


async def test_what_a_killed_relay_held_is_free_within_half_a_minute_but_not_while_it_publishes(
    transport: MemoryTransport,
) -> None:
    rows = Rows(a_row(1))
    relay = a_relay(rows, transport)

    await relay.relay_once()

    assert 2 * relay._timeout_s <= rows.lease_s <= 30.0


async def test_an_event_that_nobody_hears_is_done(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1, "unbound", mandatory=False))

    await a_relay(rows, transport).relay_once()

    assert (rows.waiting, rows.postponed, rows.parked) == ([], [], [])


async def test_what_can_never_leave_is_parked_and_stops_nobody(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1, body=b"x" * 2000), a_row(2), a_row(3, "unbound", attempts=ATTEMPTS_MAX - 1))

    await a_relay(rows, transport).relay_once()

    assert rows.parked == [1, 3]
    assert transport.broker.bodies("q") == [b"x"]
    assert MessageTooLargeError.transient is False


async def test_however_long_the_broker_is_away_nothing_is_parked_and_all_leaves_soon_after(
    transport: MemoryTransport,
) -> None:
    rows = Rows(a_row(1, attempts=100 * ATTEMPTS_MAX))
    await transport.aclose()

    await a_relay(rows, transport).relay_once()

    assert (rows.parked, rows.postponed) == ([], [(1, 5.0)])


async def test_a_defect_of_the_outbox_does_not_end_it(transport: MemoryTransport, logs: Logs) -> None:
    rows = Rows()
    rows.defects = 1
    relay = a_relay(rows, transport)
    running = asyncio.create_task(relay.run())
    try:
        await asyncio.sleep(0)
        rows.waiting.append(a_row(1))
        relay.wake()
        await eventually(lambda: not rows.waiting)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    [entry] = logs.of("outbox.unavailable")
    assert entry["reason"] == "a defect: RuntimeError"


async def test_it_wakes_on_a_commit_and_outlives_an_outage_of_the_store(transport: MemoryTransport) -> None:
    rows = Rows()
    rows.outages = 1
    relay = a_relay(rows, transport)
    running = asyncio.create_task(relay.run())
    try:
        await asyncio.sleep(0)
        rows.waiting.append(a_row(1))
        relay.wake()
        woken_idle = relay.is_idle
        await eventually(lambda: not rows.waiting and relay.is_idle)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert not woken_idle
    assert transport.broker.bodies("q") == [b"x"]


async def test_told_to_finish_it_ends_what_it_has_begun_and_empties_the_outbox(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1, body=b"one"))
    relay = a_relay(rows, transport)
    running = asyncio.create_task(relay.run())
    # The first publish is under way.
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    rows.waiting.append(a_row(2, body=b"two"))
    relay.finish()
    await asyncio.wait_for(running, LIMIT_S)

    assert rows.waiting == []
    assert transport.broker.bodies("q") == [b"one", b"two"]


async def test_told_to_finish_without_a_store_it_does_not_wait_for_one(transport: MemoryTransport) -> None:
    rows = Rows(a_row(1))
    rows.outages = 1_000
    relay = a_relay(rows, transport)

    relay.finish()
    await asyncio.wait_for(relay.run(), LIMIT_S)

    assert len(rows.waiting) == 1


async def test_rows_of_a_key_leave_one_after_the_other_in_their_order(transport: MemoryTransport) -> None:
    rows = Rows(*(a_row(number, body=b"%d" % number, lane="orders/ab"[: 7 + number % 2]) for number in range(10)))

    async with transport.broker.stalled():
        relaying = asyncio.create_task(a_relay(rows, transport).relay_once())
        await eventually(lambda: len(transport.broker._held) == 2)
        await asyncio.sleep(0)
        # One of each key is under way.
        assert len(transport.broker._held) == 2
    assert await relaying == 10

    bodies = [int(body) for body in transport.broker.bodies("q")]
    assert [number for number in bodies if number % 2] == [1, 3, 5, 7, 9]
    assert [number for number in bodies if number % 2 == 0] == [0, 2, 4, 6, 8]
    assert rows.waiting == []


async def test_behind_a_row_that_comes_back_later_its_key_waits_and_the_others_do_not(
    transport: MemoryTransport,
) -> None:
    rows = Rows(a_row(1, "unbound", lane="a"), a_row(2, lane="a"), a_row(3, lane="b"), a_row(4, lane="a"), a_row(5))

    looked_at = await a_relay(rows, transport).relay_once()

    assert looked_at == 3
    assert [number for number, _ in rows.postponed] == [1]
    assert rows.released == [2, 4]
    assert [row.id for row in rows.waiting] == [2, 4]


async def test_behind_a_row_that_never_can_leave_its_key_goes_on(transport: MemoryTransport, logs: Logs) -> None:
    rows = Rows(a_row(1, body=b"x" * 2_000, lane="a"), a_row(2, body=b"next", lane="a"))

    await a_relay(rows, transport).relay_once()

    assert (rows.parked, rows.waiting) == ([1], [])
    assert transport.broker.bodies("q") == [b"next"]
    assert "outbox.parked" in logs.events


async def test_key_that_takes_too_long_is_left_to_the_next_look(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.runtime.relay.LEASE_S", -1.0)
    rows = Rows(a_row(1, lane="a"), a_row(2, lane="a"))

    await Relay(rows, transport=transport, owner="me", timeout_s=LIMIT_S)._publish_in_order(rows.waiting, {})

    assert len(transport.broker.bodies("q")) == 1


class HandingRows(Rows):
    """An outbox that hands over what is committed."""

    def __init__(self, *rows: Claimed) -> None:
        super().__init__(*rows)
        self.taker: Taker | None = None
        self.leases: list[tuple[str, float]] = []
        self.held: list[Claimed] = []
        self.deletions: list[int] = []

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        self.taker = taker
        self.leases.append((owner, lease_s))

    def keep(self, owner: str) -> None:
        assert owner == self.leases[-1][0]
        self.taker = None

    def commit(self, *rows: Claimed, leaves_more: bool = False) -> None:
        assert self.taker is not None
        self.held += rows
        self.taker.take(rows, leaves_more=leaves_more)

    async def delete(self, rows: Sequence[Claimed]) -> None:
        self.deletions.append(len(rows))
        if self.outages:
            self.outages -= 1
            raise StoreUnavailableError("the database does not answer")
        self.held = [row for row in self.held if row not in rows]
        await super().delete(rows)

    async def postpone(self, row: Claimed, *, delay_s: float, reason: str) -> None:
        self.held.remove(row)
        self.postponed.append((row.id, delay_s))

    async def release(self, ids: Sequence[int]) -> None:
        self.waiting += [row for row in self.held if row.id in ids]
        await super().release(ids)


@contextlib.asynccontextmanager
async def running(relay: Relay, rows: HandingRows) -> AsyncIterator[None]:
    """Run a relay that takes what is committed, until what was is done."""
    task = asyncio.create_task(relay.run())
    await eventually(lambda: rows.taker is not None and relay.is_idle)
    try:
        yield
        relay.finish()
        await asyncio.wait_for(task, LIMIT_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_handed_over_leaves_and_is_deleted_without_being_looked_for(transport: MemoryTransport) -> None:
    rows = HandingRows()
    relay = a_relay(rows, transport)

    async with running(relay, rows):
        # What lies in the outbox is found by a look alone.
        rows.waiting.append(a_row(9, body=b"found"))
        rows.commit(a_row(1, body=b"one"), a_row(2, body=b"two"))
        relay.note_commit()
        await eventually(lambda: len(transport.broker.bodies("q")) == 2)
        assert transport.broker.bodies("q") == [b"one", b"two"]
        await eventually(lambda: not rows.held)

    assert rows.held == []
    assert rows.taker is None
    assert transport.broker.bodies("q") == [b"one", b"two", b"found"]


async def test_what_it_holds_has_another_name_than_what_it_claims(transport: MemoryTransport) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        pass

    [(owner, lease_s)] = rows.leases
    assert owner != "me"
    assert lease_s == LEASE_S


async def test_many_commits_are_deleted_together(transport: MemoryTransport) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        for number in range(1, 21):
            rows.commit(a_row(number))
            await asyncio.sleep(0)

    assert sum(rows.deletions) == 20
    assert len(rows.deletions) < 10


async def test_what_was_not_handed_over_with_the_rest_is_looked_for(transport: MemoryTransport) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        rows.waiting.append(a_row(2, body=b"keyed", lane="a"))
        rows.commit(a_row(1, body=b"one"), leaves_more=True)
        await eventually(lambda: len(transport.broker.bodies("q")) == 2)

    assert (rows.held, rows.waiting) == ([], [])


async def test_what_is_handed_over_and_cannot_leave_comes_back_later(transport: MemoryTransport) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        rows.commit(a_row(1, "unbound"), a_row(2))

    assert rows.postponed == [(1, 1.0)]
    assert rows.held == []


async def test_what_cannot_be_deleted_is_not_sent_again_while_it_is_tried(transport: MemoryTransport) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        rows.outages = 1
        rows.commit(a_row(1))
        await eventually(lambda: not rows.held)

    assert transport.broker.bodies("q") == [b"x"]
    assert rows.deletions == [1, 1]


async def test_what_was_held_too_long_is_given_back_before_its_lease_ends(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = HandingRows()

    async with running(a_relay(rows, transport), rows):
        monkeypatch.setattr("messaging.runtime.relay.LEASE_S", 0.0)
        rows.commit(a_row(1))
        await eventually(lambda: rows.released == [1])
        await eventually(lambda: not rows.waiting)

    assert transport.broker.bodies("q") == [b"x"]


async def test_it_takes_no_more_than_it_has_room_for(transport: MemoryTransport) -> None:
    rows = HandingRows()
    many, large = a_relay(rows, transport), a_relay(rows, transport)

    many.take([a_row(number) for number in range(1_000)], leaves_more=False)
    large.take([a_row(1, body=b"x" * 8 * 1024 * 1024)], leaves_more=False)

    assert a_relay(rows, transport).has_room
    assert not many.has_room
    assert not large.has_room
