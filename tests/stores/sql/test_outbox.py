import asyncio
import re
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from messaging.core.sealed import Label, Route
from messaging.stores.base import InboxKey, Outgoing
from messaging.stores.sql import SqlStore
from tests.support.sealing import as_sealed

PAGE = Path(__file__).resolve().parents[3] / "docs" / "stores.md"


async def stage(store: SqlStore, *bodies: bytes, commits: bool = True, lane: str | None = None) -> None:
    key = InboxKey("orders", "users", uuid4())
    reservation = await store.inbox.reserve(key, leaf=b"\1" * 32, expires_at_ms=4_000_000_000_000, lease_s=1)
    assert reservation.unit is not None
    for body in bodies:
        await reservation.unit.stage(
            Outgoing(
                sealed=as_sealed(body),
                route=Route(exchange="messaging.events", routing_key="orders.placed.v1", mandatory=False),
                label=Label(message_id=uuid4().hex, type="orders.placed/1"),
                partition_key=lane,
            )
        )
    await (store.inbox.complete(reservation) if commits else store.inbox.release(reservation))


async def test_what_a_handler_staged_waits_once_it_is_committed(store: SqlStore) -> None:
    await stage(store, b"one", b"two")

    rows = await store.outbox("orders").claim(limit=10, lease_s=60, owner="a")

    assert [row.body for row in rows] == [b"one", b"two"]
    assert rows[0].route == Route(exchange="messaging.events", routing_key="orders.placed.v1", mandatory=False)
    assert rows[0].label.type == "orders.placed/1"


async def test_what_was_rolled_back_never_leaves(store: SqlStore) -> None:
    await stage(store, b"one", commits=False)

    assert await store.outbox("orders").depth() == (0, 0)


async def test_two_relays_never_hold_the_same_row(store: SqlStore) -> None:
    await stage(store, b"one", b"two")
    outbox = store.outbox("orders")

    first, second = await asyncio.gather(
        outbox.claim(limit=10, lease_s=60, owner="a"), outbox.claim(limit=10, lease_s=60, owner="b")
    )

    assert sorted(len(rows) for rows in (first, second)) == [0, 2]


async def test_rows_of_a_killed_relay_are_taken_over_when_its_lease_ends(store: SqlStore) -> None:
    await stage(store, b"one")
    outbox = store.outbox("orders")
    await outbox.claim(limit=10, lease_s=-1, owner="killed")

    taken = await outbox.claim(limit=10, lease_s=60, owner="b")

    assert [row.body for row in taken] == [b"one"]


async def test_a_service_sees_only_its_own_rows(store: SqlStore) -> None:
    await stage(store, b"one")

    assert await store.outbox("users").claim(limit=10, lease_s=60, owner="a") == []


async def test_deleted_rows_are_gone(store: SqlStore) -> None:
    await stage(store, b"one", b"two")
    outbox = store.outbox("orders")
    rows = await outbox.claim(limit=10, lease_s=60, owner="a")

    await outbox.delete([rows[0]])

    assert await outbox.depth() == (1, 0)


async def test_a_postponed_row_comes_back_later_and_says_why(store: SqlStore) -> None:
    await stage(store, b"one")
    outbox = store.outbox("orders")
    [row] = await outbox.claim(limit=10, lease_s=60, owner="a")

    await outbox.postpone(row, delay_s=60, reason="nobody is bound")
    at_once = await outbox.claim(limit=10, lease_s=60, owner="a")
    await outbox.postpone(row, delay_s=-1, reason="nobody is bound")
    [later] = await outbox.claim(limit=10, lease_s=60, owner="a")

    assert at_once == []
    assert later.attempts == 2


async def test_a_parked_row_is_visible_and_in_nobodys_way(store: SqlStore) -> None:
    await stage(store, b"one", b"two")
    outbox = store.outbox("orders")
    poison, good = await outbox.claim(limit=10, lease_s=60, owner="a")

    await outbox.park(poison, reason="too large")
    await outbox.delete([good])

    assert await outbox.depth() == (0, 1)
    assert await outbox.claim(limit=10, lease_s=60, owner="a") == []


async def test_a_parked_row_is_seen_and_given_back_by_the_statements_of_the_page(store: SqlStore) -> None:
    await stage(store, b"one")
    outbox = store.outbox("orders")
    [row] = await outbox.claim(limit=10, lease_s=60, owner="a")
    await outbox.park(row, reason="nobody is bound")
    printed = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)[0].replace(
        "billing.charge/1", row.label.type
    )
    look, give_back = printed.strip().splitlines()

    async with store.engine.begin() as connection:
        [seen] = (await connection.execute(text(look))).mappings()
        await connection.execute(text(give_back))

    [again] = await outbox.claim(limit=10, lease_s=60, owner="a")
    assert (seen["message_type"], seen["problem"]) == ("orders.placed/1", "nobody is bound")
    assert (again.body, again.attempts) == (b"one", 0)


async def test_rows_of_a_key_are_held_by_one_relay_at_a_time(store: SqlStore) -> None:
    await stage(store, b"a1", b"a2", lane="a")
    await stage(store, b"b1", lane="b")
    await stage(store, b"free")
    outbox = store.outbox("orders")
    first = await outbox.claim(limit=1, lease_s=60, owner="first")

    second = await outbox.claim(limit=10, lease_s=60, owner="second")

    assert [row.body for row in first] == [b"a1"]
    assert [(row.body, row.partition_key) for row in second] == [(b"b1", "b"), (b"free", None)]
    # The first goes on where it was.
    assert [row.body for row in await outbox.claim(limit=10, lease_s=60, owner="first")] == [b"a1", b"a2"]


async def test_relays_that_look_at_once_never_share_a_key(store: SqlStore) -> None:
    for number in range(10):
        await stage(store, b"%d" % number, lane="ab"[number % 2])
    outbox = store.outbox("orders")

    found = await asyncio.gather(*(outbox.claim(limit=3, lease_s=60, owner=owner) for owner in "xyz"))

    keys = [{row.partition_key for row in rows} for rows in found]
    assert sum(len(each) for each in keys) == 2
    for rows in found:
        for key in "ab":
            taken = [int(row.body) for row in rows if row.partition_key == key]
            assert taken == list(range("ab".index(key), 10, 2))[: len(taken)]


async def test_behind_a_row_that_waits_for_its_next_try_its_key_waits(store: SqlStore) -> None:
    await stage(store, b"a1", b"a2", lane="a")
    outbox = store.outbox("orders")
    first, second = await outbox.claim(limit=10, lease_s=60, owner="a")
    await outbox.postpone(first, delay_s=60, reason="full")
    await outbox.release([second.id])

    assert await outbox.claim(limit=10, lease_s=60, owner="b") == []
    assert await outbox.depth() == (2, 0)


async def test_behind_a_row_that_is_parked_its_key_goes_on(store: SqlStore) -> None:
    await stage(store, b"a1", b"a2", lane="a")
    outbox = store.outbox("orders")
    first, second = await outbox.claim(limit=10, lease_s=60, owner="a")
    await outbox.park(first, reason="too large")
    await outbox.release([second.id])

    assert [row.body for row in await outbox.claim(limit=10, lease_s=60, owner="b")] == [b"a2"]
    assert await outbox.depth() == (1, 1)


async def test_key_of_a_killed_relay_is_taken_over_in_order(store: SqlStore) -> None:
    await stage(store, b"a1", b"a2", b"a3", lane="a")
    outbox = store.outbox("orders")
    await outbox.claim(limit=2, lease_s=-1, owner="killed")

    assert [row.body for row in await outbox.claim(limit=10, lease_s=60, owner="b")] == [b"a1", b"a2", b"a3"]


async def test_a_relay_that_slept_through_its_lease_removes_and_changes_nothing_of_a_row_with_the_same_number(
    store: SqlStore,
) -> None:
    await stage(store, b"one")
    outbox = store.outbox("orders")
    [slept] = await outbox.claim(limit=10, lease_s=-1, owner="slept")
    await outbox.delete(await outbox.claim(limit=10, lease_s=60, owner="b"))
    await stage(store, b"two")

    await outbox.park(slept, reason="too large")
    await outbox.delete([slept])

    assert await outbox.depth() == (1, 0)
