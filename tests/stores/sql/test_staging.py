"""What was committed is handed to the relay of this process, leased; on SQLite and PostgreSQL."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from messaging.core.sealed import Label, Route
from messaging.stores.base import Claimed, Grouping, HandingOver, InboxKey, Outgoing, Reservation
from messaging.stores.sql import SqlStore
from tests.support.sealing import as_sealed

LEASED_S = 60.0


class Takes:
    """A relay that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[Claimed] = []
        self.has_room = True
        self.more = 0

    def take(self, rows: Sequence[Claimed], *, leaves_more: bool) -> None:
        self.rows += rows
        self.more += leaves_more


def taking(store: SqlStore, *, lease_s: float = LEASED_S) -> Takes:
    takes = Takes()
    store.outbox("orders").hand_over(takes, owner="held", lease_s=lease_s)
    return takes


async def reserved(store: SqlStore, grouping: Grouping | None = None) -> Reservation:
    key = InboxKey("orders", "users", uuid4())
    return await store.inbox.reserve(
        key, leaf=b"\1" * 32, expires_at_ms=4_000_000_000_000, lease_s=1, grouping=grouping
    )


async def stage(reservation: Reservation, body: bytes, *, lane: str | None = None) -> None:
    assert reservation.unit is not None
    await reservation.unit.stage(
        Outgoing(
            sealed=as_sealed(body),
            route=Route(exchange="messaging.commands", routing_key="orders.place.v1"),
            label=Label(message_id=uuid4().hex, type="orders.place/1"),
            partition_key=lane,
        )
    )


async def run(store: SqlStore, *bodies: bytes, lane: str | None = None, grouping: Grouping | None = None) -> None:
    reservation = await reserved(store, grouping)
    for body in bodies:
        await stage(reservation, body, lane=lane)
    await store.inbox.complete(reservation)


async def claimed(store: SqlStore) -> list[bytes]:
    rows = await store.outbox("orders").claim(limit=10, lease_s=LEASED_S, owner="another")
    return [row.body for row in rows]


async def test_what_is_committed_is_handed_over_and_nobody_else_finds_it(store: SqlStore) -> None:
    takes = taking(store)

    await run(store, b"one", b"two")

    assert [row.body for row in takes.rows] == [b"one", b"two"]
    assert takes.more == 0
    assert await claimed(store) == []
    await store.outbox("orders").delete(takes.rows)
    assert await store.outbox("orders").depth() == (0, 0)


async def test_groups_hand_over_what_all_of_them_sent(store: SqlStore) -> None:
    takes = taking(store)
    grouping = Grouping(name="place_order", size=2, wait_s=30.0)

    await asyncio.gather(run(store, b"one", grouping=grouping), run(store, b"two", grouping=grouping))

    assert sorted(row.body for row in takes.rows) == [b"one", b"two"]
    assert len({row.id for row in takes.rows}) == 2


async def test_what_is_handed_over_is_found_by_others_once_the_lease_is_over(store: SqlStore) -> None:
    taking(store, lease_s=-1.0)

    await run(store, b"one")

    assert await claimed(store) == [b"one"]


async def test_what_is_rolled_back_is_not_handed_over(store: SqlStore) -> None:
    takes = taking(store)
    reservation = await reserved(store)
    await stage(reservation, b"one")

    await store.inbox.undo(reservation)

    assert (takes.rows, takes.more) == ([], 0)


async def test_rows_with_a_key_are_for_the_claim_to_order(store: SqlStore) -> None:
    takes = taking(store)

    await run(store, b"one", b"two", lane="orders/7")

    assert (takes.rows, takes.more) == ([], 1)
    assert await claimed(store) == [b"one", b"two"]


async def test_what_there_is_no_room_for_is_free_at_once(store: SqlStore) -> None:
    takes = taking(store)
    takes.has_room = False

    await run(store, b"one")

    assert (takes.rows, takes.more) == ([], 1)
    assert await claimed(store) == [b"one"]


async def test_who_has_gone_is_given_nothing_and_who_came_since_is_not_meant(store: SqlStore) -> None:
    takes, outbox = taking(store), store.outbox("orders")
    assert isinstance(outbox, HandingOver)

    outbox.keep("somebody else")
    await run(store, b"one")
    outbox.keep("held")
    await run(store, b"two")

    assert [row.body for row in takes.rows] == [b"one"]
    assert await claimed(store) == [b"two"]


async def test_another_service_hands_over_to_its_own_relay(store: SqlStore) -> None:
    takes = Takes()
    store.outbox("users").hand_over(takes, owner="users", lease_s=LEASED_S)

    await run(store, b"one")

    assert takes.rows == []
    assert await claimed(store) == [b"one"]
