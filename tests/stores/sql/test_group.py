"""Many deliveries in one transaction: together or not at all, and innocents in the end."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Uuid, func, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from messaging.core.inbox import Decision, RowState
from messaging.core.schedule import Cancellation
from messaging.core.sealed import Label, Route
from messaging.errors import ConfigurationError, NotYetUsableError
from messaging.security.seal import restored
from messaging.stores.base import Grouping, GroupUndoneError, InboxKey, Outgoing, Reservation, Scheduled
from messaging.stores.sql import SqlStore
from messaging.stores.sql.schema import INBOX

LEAF, OTHER = b"\1" * 32, b"\2" * 32
FAR_MS: Final = 4_000_000_000_000
THREE: Final = Grouping(name="place_order", size=3, wait_s=30.0)
SOON: Final = Grouping(name="place_order", size=10, wait_s=0.02)
OF_ANOTHER: Final = Grouping(name="cancel_order", size=10, wait_s=0.02)
EFFECTS = Table("effects", MetaData(), Column("order_id", Uuid))
# What PostgreSQL does to a transaction in which a statement failed, SQLite does only if it is told to.
STRICT = Table(
    "strict",
    EFFECTS.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, sqlite_on_conflict_primary_key="ROLLBACK"),
)


@pytest.fixture(autouse=True)
async def effects(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(EFFECTS.metadata.create_all)


def key(message_id: UUID | None = None) -> InboxKey:
    return InboxKey("orders", "users", message_id or uuid4())


async def reserve(
    store: SqlStore, of: InboxKey, grouping: Grouping | None = THREE, leaf: bytes = LEAF, expires_at_ms: int = FAR_MS
) -> Reservation:
    return await store.inbox.reserve(of, leaf=leaf, expires_at_ms=expires_at_ms, lease_s=60, grouping=grouping)


def session_of(reservation: Reservation) -> AsyncSession:
    found = None if reservation.unit is None else reservation.unit.find(AsyncSession)
    assert isinstance(found, AsyncSession)
    return found


async def act(reservation: Reservation) -> None:
    assert reservation.unit is not None
    await session_of(reservation).execute(insert(EFFECTS).values(order_id=reservation.key.message_id))
    label = Label(message_id=uuid4().hex, type="orders.order_placed/1")
    await reservation.unit.stage(
        Outgoing(sealed=restored(b"sealed"), route=Route(exchange="e", routing_key="k"), label=label)
    )


async def handle(store: SqlStore, of: InboxKey, grouping: Grouping | None = THREE) -> Decision:
    """Do what a consumer does: run, and alone once more if the group is undone."""
    reservation = await reserve(store, of, grouping)
    while reservation.decision is Decision.RUN:
        await act(reservation)
        try:
            await store.inbox.complete(reservation)
        except GroupUndoneError:
            reservation = await store.inbox.renew(reservation)
        else:
            break
    return reservation.decision


async def fail(store: SqlStore, of: InboxKey, grouping: Grouping = THREE) -> None:
    reservation = await reserve(store, of, grouping)
    await act(reservation)
    await store.inbox.undo(reservation)


async def together(*acts: Awaitable[Any]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*acts)


async def done(engine: AsyncEngine, store: SqlStore) -> tuple[set[UUID], int]:
    async with engine.connect() as connection:
        ids = [row.order_id for row in await connection.execute(select(EFFECTS))]
    assert len(ids) == len(set(ids))
    return set(ids), (await store.outbox("orders").depth())[0]


async def transactions(engine: AsyncEngine, ids: set[UUID]) -> int:
    """Count in how many transactions rows were written; PostgreSQL tells."""
    async with engine.connect() as connection:
        return int(
            await connection.scalar(
                select(func.count(func.distinct(text("xmin::text"))))
                .select_from(INBOX)
                .where(INBOX.c.message_id.in_(ids))
            )
            or 0
        )


async def test_a_full_group_is_one_commit(store: SqlStore, engine: AsyncEngine) -> None:
    keys = [key() for _ in range(3)]

    decisions = await together(*(handle(store, each) for each in keys))

    ids = {each.message_id for each in keys}
    assert decisions == [Decision.RUN] * 3
    assert await done(engine, store) == (ids, 3)
    if engine.dialect.name == "postgresql":
        assert await transactions(engine, ids) == 1


async def test_members_run_one_after_the_other_in_order_and_nobody_is_done_before_the_last(store: SqlStore) -> None:
    events: list[str] = []

    async def member(number: int) -> None:
        reservation = await reserve(store, key())
        events.append(f"begin {number}")
        await act(reservation)
        await asyncio.sleep(0)
        events.append(f"end {number}")
        await store.inbox.complete(reservation)
        events.append("done")

    await together(*(member(number) for number in range(3)))

    assert events == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2", "done", "done", "done"]


async def test_a_group_that_does_not_fill_goes_when_its_time_is_up(store: SqlStore, engine: AsyncEngine) -> None:
    keys = [key(), key()]

    await together(*(handle(store, each, SOON) for each in keys))

    assert await done(engine, store) == ({each.message_id for each in keys}, 2)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_member_that_fails_is_alone_with_it(store: SqlStore, engine: AsyncEngine, place: int) -> None:
    innocents, guilty = [key(), key()], key()
    acts: list[Awaitable[Any]] = [handle(store, each) for each in innocents]
    acts.insert(place, fail(store, guilty))

    await together(*acts)

    assert await done(engine, store) == ({each.message_id for each in innocents}, 2)
    assert await store.inbox.state(guilty, leaf=LEAF) is RowState.ABSENT


async def test_a_member_that_is_buried_is_recorded_and_the_others_commit(store: SqlStore, engine: AsyncEngine) -> None:
    innocent, guilty = key(), key()

    async def bury() -> None:
        await store.inbox.fail(await reserve(store, guilty, SOON))

    await together(handle(store, innocent, SOON), bury())

    assert await done(engine, store) == ({innocent.message_id}, 1)
    assert await store.inbox.state(guilty, leaf=LEAF) is RowState.FAILED


async def test_of_two_deliveries_of_one_message_one_runs_and_the_other_is_dropped(
    store: SqlStore, engine: AsyncEngine
) -> None:
    twice, other = key(), key()

    decisions = await together(handle(store, twice), handle(store, twice), handle(store, other), handle(store, key()))

    assert set(decisions[:2]) == {Decision.RUN, Decision.DROP}
    assert decisions[2:] == [Decision.RUN, Decision.RUN]
    assert (await done(engine, store))[1] == 3


async def test_what_ran_before_is_dropped_and_other_bytes_are_told(store: SqlStore, engine: AsyncEngine) -> None:
    known = key()
    await handle(store, known, None)

    dropped, ran, other = await together(
        handle(store, known, SOON), handle(store, key(), SOON), reserve(store, known, OF_ANOTHER, OTHER)
    )

    assert (dropped, ran) == (Decision.DROP, Decision.RUN)
    assert other.decision is Decision.OTHER_BYTES
    assert (await done(engine, store))[1] == 2


async def test_two_services_with_one_store_never_share_a_group(store: SqlStore) -> None:
    # Handlers that one function makes for several services have one name, and an event has one id for all of them.
    of_orders = key()
    of_billing = InboxKey("billing", of_orders.sender, of_orders.message_id)
    pair = Grouping(name="note_order", size=2, wait_s=0.2)
    await handle(store, of_orders, None)

    async def handle_in_billing() -> Decision:
        reservation = await reserve(store, of_billing, pair)
        await act(reservation)
        await store.inbox.complete(reservation)
        return reservation.decision

    decisions = await together(handle_in_billing(), handle(store, of_orders, pair))

    assert decisions == [Decision.RUN, Decision.DROP]
    assert [(await store.outbox(service).depth())[0] for service in ("orders", "billing")] == [1, 1]


async def test_nothing_but_repetitions_leaves_nothing_open(store: SqlStore, engine: AsyncEngine) -> None:
    known = key()
    await handle(store, known, None)

    assert await handle(store, known, SOON) is Decision.DROP

    # The writer's turn is free again.
    await together(handle(store, key(), SOON))
    assert (await done(engine, store))[1] == 2


async def test_a_member_that_leaves_before_the_transaction_begins_is_simply_gone(
    store: SqlStore, engine: AsyncEngine
) -> None:
    first, leaving = key(), key()
    one = asyncio.create_task(handle(store, first, SOON))
    two = asyncio.create_task(handle(store, leaving, SOON))
    await asyncio.sleep(0)

    two.cancel()
    await together(one)

    assert await done(engine, store) == ({first.message_id}, 1)
    assert await store.inbox.state(leaving, leaf=LEAF) is RowState.ABSENT


async def test_when_the_leader_is_cancelled_the_others_run_alone(store: SqlStore, engine: AsyncEngine) -> None:
    leader = asyncio.create_task(handle(store, key()))
    other = key()
    follower = asyncio.create_task(handle(store, other))
    await asyncio.sleep(0)

    leader.cancel()
    await together(follower)

    assert await done(engine, store) == ({other.message_id}, 1)


async def test_a_member_that_is_given_back_while_it_waits_its_turn_takes_no_row_along(
    store: SqlStore, engine: AsyncEngine
) -> None:
    first, waiting = await together_begun(store)

    waiting.cancel()
    await asyncio.wait({waiting})
    innocent = await first_runs(store, first)

    assert await done(engine, store) == ({innocent}, 1)


async def together_begun(store: SqlStore) -> tuple[Reservation, asyncio.Task[Decision]]:
    """Return a member that runs, and a task that waits its turn behind it."""
    pair = Grouping(name="pair", size=2, wait_s=30.0)
    begun = asyncio.create_task(reserve(store, key(), pair))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(handle(store, key(), pair))
    return await begun, waiting


async def first_runs(store: SqlStore, reservation: Reservation) -> UUID:
    with pytest.raises(GroupUndoneError):
        await act_and_complete(store, reservation)
    again = await store.inbox.renew(reservation)
    await act_and_complete(store, again)
    return again.key.message_id


async def act_and_complete(store: SqlStore, reservation: Reservation) -> None:
    await act(reservation)
    await store.inbox.complete(reservation)


async def test_a_member_that_ran_and_is_given_back_is_committed_with_the_others(
    store: SqlStore, engine: AsyncEngine
) -> None:
    pair = Grouping(name="pair", size=2, wait_s=30.0)
    first, second = key(), key()
    one = asyncio.create_task(handle(store, first, pair))
    await asyncio.sleep(0)
    last = await reserve(store, second, pair)

    one.cancel()
    await asyncio.wait({one})
    await act_and_complete(store, last)

    # It comes again, and is dropped then: its effects happened.
    assert await done(engine, store) == ({first.message_id, second.message_id}, 2)
    assert await handle(store, first, None) is Decision.DROP


async def test_a_commit_that_fails_is_nobodys_fault_and_each_runs_alone(store: SqlStore, engine: AsyncEngine) -> None:
    keys = [key() for _ in range(3)]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE messaging_outbox RENAME TO away"))

    async def undone(of: InboxKey) -> Reservation:
        reservation = await reserve(store, of)
        await act(reservation)
        with pytest.raises(GroupUndoneError):
            await store.inbox.complete(reservation)
        return reservation

    reservations = await together(*(undone(each) for each in keys))
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO messaging_outbox"))
    for reservation in reservations:
        await act_and_complete(store, await store.inbox.renew(reservation))

    assert await done(engine, store) == ({each.message_id for each in keys}, 3)


async def test_a_member_that_goes_on_after_everything_was_undone_takes_no_other_along(
    store: SqlStore, engine: AsyncEngine
) -> None:
    innocent, guilty = key(), key()
    pair = Grouping(name="place_order", size=2, wait_s=30.0)
    async with engine.begin() as connection:
        await connection.execute(insert(STRICT), {"id": 1})

    async def go_on() -> None:
        reservation = await reserve(store, guilty, pair)
        with pytest.raises(IntegrityError):
            await session_of(reservation).execute(insert(STRICT).values(id=1))
        with pytest.raises((ConfigurationError, GroupUndoneError)):
            await store.inbox.complete(reservation)
        await store.inbox.undo(reservation)

    await together(handle(store, innocent, pair), go_on())

    assert await done(engine, store) == ({innocent.message_id}, 1)
    assert await store.inbox.state(innocent, leaf=LEAF) is RowState.DONE
    assert await store.inbox.state(guilty, leaf=LEAF) is RowState.ABSENT


@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_a_member_that_ends_the_transaction_and_goes_on_takes_no_other_along(
    store: SqlStore, engine: AsyncEngine, end: str
) -> None:
    innocent, guilty = key(), key()
    pair = Grouping(name="place_order", size=2, wait_s=30.0)

    async def go_on() -> None:
        reservation = await reserve(store, guilty, pair)
        connection = await session_of(reservation).connection()
        with suppress(ConfigurationError):
            await getattr(connection, end)()
        with suppress(SQLAlchemyError):
            await connection.execute(insert(EFFECTS).values(order_id=guilty.message_id))
        with pytest.raises(ConfigurationError, match="rolled back"):
            await store.inbox.complete(reservation)
        await store.inbox.undo(reservation)

    await together(handle(store, innocent, pair), go_on())

    assert await done(engine, store) == ({innocent.message_id}, 1)
    assert await store.inbox.state(guilty, leaf=LEAF) is RowState.ABSENT


async def test_each_row_is_kept_by_its_own_expiry(store: SqlStore, engine: AsyncEngine) -> None:
    keys = [key() for _ in range(3)]

    async def run(number: int) -> None:
        await act_and_complete(store, await reserve(store, keys[number], expires_at_ms=FAR_MS + number))

    await together(*(run(number) for number in range(3)))

    async with engine.connect() as connection:
        kept = {row.message_id: row.keep_until_ms for row in await connection.execute(select(INBOX))}
    assert [kept[each.message_id] for each in keys] == [FAR_MS + 60_000 + number for number in range(3)]


async def test_schedules_are_of_the_same_transaction(store: SqlStore) -> None:
    scheduled = Scheduled(message_id=uuid4(), message_type="a.b/1", deliver_at_ms=FAR_MS, draft=b"draft")
    reservation = await reserve(store, key(), SOON)
    assert reservation.unit is not None
    await reservation.unit.schedule(scheduled)
    unknown = await reservation.unit.cancel(uuid4())
    await store.inbox.complete(reservation)

    assert unknown is Cancellation.UNKNOWN
    assert [row.message_id for row in await store.schedule("orders").waiting(limit=5)] == [scheduled.message_id]


async def test_a_unit_of_a_group_that_is_undone_says_so(store: SqlStore) -> None:
    reservation = await reserve(store, key(), SOON)
    await store.inbox.undo(reservation)

    with pytest.raises(GroupUndoneError):
        await store.inbox.complete(reservation)


async def test_what_cannot_be_sealed_is_nobodys_fault_until_each_is_alone(store: SqlStore) -> None:
    good, bad = key(), key()

    async def refused() -> Outgoing:
        raise NotYetUsableError("no key")

    async def spoil() -> None:
        reservation = await reserve(store, bad, SOON)
        assert reservation.unit is not None
        await reservation.unit.stage(refused)
        with pytest.raises(GroupUndoneError):
            await store.inbox.complete(reservation)
        again = await store.inbox.renew(reservation)
        assert again.unit is not None
        await again.unit.stage(refused)
        with pytest.raises(NotYetUsableError):
            await store.inbox.complete(again)

    decision, _ = await together(handle(store, good, SOON), spoil())

    assert decision is Decision.RUN
    assert await store.inbox.state(good, leaf=LEAF) is RowState.DONE
    assert await store.inbox.state(bad, leaf=LEAF) is RowState.ABSENT
