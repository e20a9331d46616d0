import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.core.inbox import Decision, Replaying, RowState
from messaging.stores.base import InboxKey, Reservation
from messaging.stores.sql import SqlStore
from messaging.stores.sql.inbox import SqlInbox

LEAF, OTHER = b"\1" * 32, b"\2" * 32
FAR_MS = 4_000_000_000_000
_business = MetaData()
EFFECTS = Table("effects", _business, Column("id", Integer, primary_key=True))


def key(message_id: UUID | None = None) -> InboxKey:
    return InboxKey("orders", "users", message_id or uuid4())


async def reserve(inbox: SqlInbox, of: InboxKey, leaf: bytes = LEAF) -> Reservation:
    return await inbox.reserve(of, leaf=leaf, expires_at_ms=FAR_MS, lease_s=60)


def session_of(reservation: Reservation) -> AsyncSession:
    found = None if reservation.unit is None else reservation.unit.find(AsyncSession)
    assert isinstance(found, AsyncSession)
    return found


async def replay(inbox: SqlInbox, of: InboxKey, outer: InboxKey, *, force: bool = False) -> Reservation:
    return await inbox.reserve_replay(
        of,
        leaf=LEAF,
        outer=outer,
        outer_leaf=OTHER,
        replaying=Replaying(in_window=True, force=force),
        expires_at_ms=FAR_MS,
        lease_s=60,
    )


async def test_a_message_runs_once(store: SqlStore) -> None:
    message = key()
    first = await reserve(store.inbox, message)
    await store.inbox.complete(first)

    again = await reserve(store.inbox, message)

    assert (first.decision, again.decision) == (Decision.RUN, Decision.DROP)
    assert await store.inbox.state(message, leaf=LEAF) is RowState.DONE


async def test_what_a_duplicate_did_meanwhile_is_not_recorded_as_failed(store: SqlStore) -> None:
    message = key()
    first = await reserve(store.inbox, message)
    await store.inbox.undo(first)
    await store.inbox.complete(await reserve(store.inbox, message))

    await store.inbox.fail(first)

    # An operator's replay of the first one's dead letter must not run it a second time.
    assert await store.inbox.state(message, leaf=LEAF) is RowState.DONE


async def test_a_concurrent_duplicate_waits_and_then_sees_it_done(store: SqlStore) -> None:
    message = key()
    first = await reserve(store.inbox, message)
    second = asyncio.create_task(reserve(store.inbox, message))
    await asyncio.sleep(0.05)
    assert not second.done()

    await store.inbox.complete(first)

    assert (await second).decision is Decision.DROP


async def test_a_released_message_runs_again(store: SqlStore) -> None:
    message = key()
    await store.inbox.release(await reserve(store.inbox, message))

    again = await reserve(store.inbox, message)

    assert again.decision is Decision.RUN
    await store.inbox.release(again)


async def test_other_bytes_never_run_under_a_recorded_id(store: SqlStore) -> None:
    message = key()
    await store.inbox.complete(await reserve(store.inbox, message))

    other = await reserve(store.inbox, message, OTHER)

    assert other.decision is Decision.OTHER_BYTES
    assert await store.inbox.state(message, leaf=OTHER) is RowState.ABSENT


async def test_a_kept_reply_answers_the_repeated_request(store: SqlStore) -> None:
    message = key()
    await store.inbox.complete(await reserve(store.inbox, message), reply=b"answer")

    again = await reserve(store.inbox, message)

    assert again.reply == b"answer"


async def test_a_repeated_request_is_sealed_anew_and_gets_the_kept_reply_all_the_same(store: SqlStore) -> None:
    message = key()
    await store.inbox.complete(await reserve(store.inbox, message), reply=b"answer")

    again = await reserve(store.inbox, message, leaf=OTHER)

    assert (again.decision, again.reply) == (Decision.OTHER_BYTES, b"answer")


async def test_a_failed_message_runs_again_only_as_a_replay(store: SqlStore) -> None:
    message, wrapper = key(), key()
    await store.inbox.fail(await reserve(store.inbox, message))

    raw = await reserve(store.inbox, message)
    replayed = await replay(store.inbox, message, wrapper)
    await store.inbox.complete(replayed)
    twice = await replay(store.inbox, message, wrapper)
    third = await replay(store.inbox, message, key())

    assert (raw.decision, replayed.decision) == (Decision.DROP, Decision.RUN)
    assert (twice.decision, third.decision) == (Decision.DROP, Decision.REFUSE)


async def test_a_replay_that_fails_again_spends_its_wrapper(store: SqlStore) -> None:
    message, wrapper = key(), key()
    await store.inbox.fail(await reserve(store.inbox, message))
    await store.inbox.fail(await replay(store.inbox, message, wrapper))

    same = await replay(store.inbox, message, wrapper)
    fresh = await replay(store.inbox, message, key())

    assert (same.decision, fresh.decision) == (Decision.DROP, Decision.RUN)
    await store.inbox.release(fresh)


async def test_a_replay_of_what_is_done_needs_force(store: SqlStore) -> None:
    message = key()
    await store.inbox.complete(await reserve(store.inbox, message))

    plain = await replay(store.inbox, message, key())
    forced = await replay(store.inbox, message, key(), force=True)

    assert (plain.decision, forced.decision) == (Decision.REFUSE, Decision.RUN)
    await store.inbox.release(forced)


@pytest.mark.parametrize("ends_well", [True, False])
async def test_business_rows_share_the_fate_of_the_message(store: SqlStore, ends_well: bool) -> None:
    engine = store.inbox._database.engine
    async with engine.begin() as connection:
        await connection.run_sync(_business.create_all)
    reservation = await reserve(store.inbox, key())
    assert reservation.unit is not None
    await session_of(reservation).execute(insert(EFFECTS))

    await (store.inbox.complete(reservation) if ends_well else store.inbox.release(reservation))

    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(EFFECTS)) == int(ends_well)


async def test_a_renewed_run_forgets_what_the_failed_one_wrote(store: SqlStore) -> None:
    engine = store.inbox._database.engine
    async with engine.begin() as connection:
        await connection.run_sync(_business.create_all)
    reservation = await reserve(store.inbox, key())
    assert reservation.unit is not None
    await session_of(reservation).execute(insert(EFFECTS))

    renewed = await store.inbox.renew(reservation)
    await store.inbox.complete(renewed)

    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(EFFECTS)) == 0
    assert await store.inbox.state(reservation.key, leaf=LEAF) is RowState.DONE


async def test_rows_that_can_no_longer_run_are_purged(store: SqlStore) -> None:
    message = key()
    reservation = await store.inbox.reserve(message, leaf=LEAF, expires_at_ms=0, lease_s=60)
    await store.inbox.complete(reservation)

    kept = await store.purge()
    async with store.inbox._database.writing() as connection:
        await connection.exec_driver_sql("UPDATE messaging_inbox SET keep_until_ms = 1")
    gone = await store.purge()

    assert (kept, gone) == (0, 1)
