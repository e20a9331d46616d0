import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging.core.schedule import Cancellation
from messaging.core.sealed import Label, Route
from messaging.errors import ConfigurationError, PolicyError
from messaging.stores.base import InboxKey, Outgoing, Schedule, Scheduled
from messaging.stores.sql import SqlStore
from messaging.stores.sql.schedule import DELAY_MAX_S, ENDED_KEPT_MS
from messaging.stores.sql.schema import SCHEDULE
from tests.support.sealing import as_sealed

PAST_MS = 1_767_225_600_000
FUTURE_MS = 4_000_000_000_000


def a_message(deliver_at_ms: int = PAST_MS, draft: bytes = b"draft", message_id: UUID | None = None) -> Scheduled:
    return Scheduled(
        message_id=message_id or uuid4(), message_type="orders.remind/1", deliver_at_ms=deliver_at_ms, draft=draft
    )


async def sealing(draft: bytes) -> Outgoing | None:
    if draft == b"unheard":
        return None
    if draft == b"refused":
        raise PolicyError("the policy does not allow it")
    if draft == b"broken":
        raise RuntimeError("[parameters: the payload]")
    return Outgoing(
        sealed=as_sealed(b"sealed " + draft),
        route=Route(exchange="messaging.commands", routing_key="orders.remind.v1"),
        label=Label(message_id=uuid4().hex, type="orders.remind/1"),
    )


async def bodies(store: SqlStore) -> list[bytes]:
    rows = await store.outbox("orders").claim(limit=100, lease_s=60, owner="test")
    return [row.body for row in rows]


async def row_of(engine: AsyncEngine, message_id: UUID) -> object:
    async with engine.connect() as connection:
        return (await connection.execute(select(SCHEDULE).where(SCHEDULE.c.message_id == message_id))).one()


async def begun(store: SqlStore, name: str = "orders") -> object:
    key = InboxKey(name, "users", uuid4())
    return await store.inbox.reserve(key, leaf=b"\1" * 32, expires_at_ms=FUTURE_MS, lease_s=1)


@pytest.fixture
def schedule(store: SqlStore) -> Schedule:
    return store.schedule("orders")


async def test_what_is_due_moves_to_the_outbox_sealed_and_the_rest_waits(store: SqlStore, schedule: Schedule) -> None:
    due, later = a_message(draft=b"due"), a_message(FUTURE_MS)
    await schedule.add(due)
    await schedule.add(later)

    released = await schedule.release(sealing, limit=10)

    assert (released.sent, released.failed) == ([due.message_id], [])
    assert await bodies(store) == [b"sealed due"]
    assert [row.message_id for row in await schedule.waiting(limit=10)] == [later.message_id]


async def test_the_databases_clock_decides_unless_a_test_has_one_of_its_own(
    store: SqlStore, schedule: Schedule
) -> None:
    await schedule.add(a_message(FUTURE_MS))

    early = await schedule.release(sealing, limit=10, now_ms=FUTURE_MS - 1)
    in_time = await schedule.release(sealing, limit=10, now_ms=FUTURE_MS)

    assert (len(early.sent), len(in_time.sent)) == (0, 1)


async def test_the_next_due_row_is_known_by_the_clock_asked_for(schedule: Schedule) -> None:
    assert await schedule.next_due_s() is None
    await schedule.add(a_message(FUTURE_MS))
    await schedule.add(a_message(FUTURE_MS + 1))

    by_the_database = await schedule.next_due_s()

    assert await schedule.next_due_s(now_ms=FUTURE_MS - 2_500) == 2.5
    assert by_the_database is not None
    assert by_the_database == pytest.approx(FUTURE_MS / 1000 - datetime.now(UTC).timestamp(), abs=60)


async def test_an_ended_row_keeps_no_payload(store: SqlStore, schedule: Schedule, engine: AsyncEngine) -> None:
    sent, cancelled = a_message(), a_message(FUTURE_MS)
    await schedule.add(sent)
    await schedule.add(cancelled)

    await schedule.release(sealing, limit=10)
    await schedule.cancel(cancelled.message_id)

    for message in (sent, cancelled):
        row = await row_of(engine, message.message_id)
        assert row.draft is None  # type: ignore[attr-defined]
        assert row.ended_at_ms > PAST_MS  # type: ignore[attr-defined]


async def test_cancelling_tells_what_became_of_the_message(schedule: Schedule) -> None:
    waits, gone = a_message(FUTURE_MS), a_message()
    await schedule.add(waits)
    await schedule.add(gone)
    await schedule.release(sealing, limit=10)

    told = [await schedule.cancel(one) for one in (waits.message_id, waits.message_id, gone.message_id, uuid4())]

    assert told == [Cancellation.CANCELLED, Cancellation.CANCELLED, Cancellation.SENT, Cancellation.UNKNOWN]
    assert await schedule.waiting(limit=10) == []


async def test_one_services_messages_are_unknown_to_another(store: SqlStore, schedule: Schedule) -> None:
    message = a_message()
    await schedule.add(message)

    assert await store.schedule("users").cancel(message.message_id) is Cancellation.UNKNOWN
    assert (await store.schedule("users").release(sealing, limit=10)).sent == []


async def test_the_same_message_for_the_same_time_is_one(schedule: Schedule) -> None:
    message = a_message(FUTURE_MS)

    await schedule.add(message)
    await schedule.add(message)

    assert len(await schedule.waiting(limit=10)) == 1


async def test_an_id_is_not_moved_to_another_time_behind_its_callers_back(schedule: Schedule) -> None:
    message = a_message(FUTURE_MS)
    await schedule.add(message)

    with pytest.raises(ConfigurationError, match="on the schedule for 2096-10-02T07:06:40"):
        await schedule.add(a_message(FUTURE_MS + 1, message_id=message.message_id))


async def test_what_was_cancelled_stays_so(schedule: Schedule) -> None:
    message = a_message(FUTURE_MS)
    await schedule.add(message)
    await schedule.cancel(message.message_id)

    with pytest.raises(ConfigurationError, match="was cancelled: send it anew, under another id"):
        await schedule.add(message)


async def test_what_was_sent_is_not_sent_again_under_its_id(schedule: Schedule, store: SqlStore) -> None:
    message = a_message()
    await schedule.add(message)
    await schedule.release(sealing, limit=10)

    await schedule.add(message)

    assert (await schedule.release(sealing, limit=10)).sent == []


async def test_what_cannot_be_sealed_stays_says_why_and_stops_nobody(
    store: SqlStore, schedule: Schedule, engine: AsyncEngine
) -> None:
    refused, broken, good = a_message(draft=b"refused"), a_message(draft=b"broken"), a_message(draft=b"good")
    for message in (refused, broken, good):
        await schedule.add(message)

    released = await schedule.release(sealing, limit=10)
    at_once = await schedule.release(sealing, limit=10)

    assert dict(released.failed) == {
        refused.message_id: "the policy does not allow it",
        broken.message_id: "a defect: RuntimeError",
    }
    assert await bodies(store) == [b"sealed good"]
    assert (at_once.sent, at_once.failed) == ([], [])
    assert {(row.attempts, row.problem) for row in await schedule.waiting(limit=10)} == {
        (1, "the policy does not allow it"),
        (1, "a defect: RuntimeError"),
    }


async def test_the_pause_between_tries_grows_to_minutes(schedule: Schedule) -> None:
    await schedule.add(a_message(draft=b"refused"))
    now_ms, pauses = PAST_MS, []
    for _ in range(10):
        await schedule.release(sealing, limit=10, now_ms=now_ms)
        pause_s = await schedule.next_due_s(now_ms=now_ms)
        assert pause_s is not None
        pauses.append(pause_s)
        now_ms += round(pause_s * 1000)

    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, DELAY_MAX_S]


async def test_an_event_that_nobody_subscribes_ends_without_leaving(store: SqlStore, schedule: Schedule) -> None:
    message = a_message(draft=b"unheard")
    await schedule.add(message)

    await schedule.release(sealing, limit=10)

    assert await bodies(store) == []
    assert await schedule.cancel(message.message_id) is Cancellation.SENT


async def test_a_release_that_is_cut_off_leaves_the_rows_as_they_were(store: SqlStore, schedule: Schedule) -> None:
    await schedule.add(a_message())
    sealed_once = asyncio.Event()

    async def hanging(draft: bytes) -> Outgoing | None:
        sealed_once.set()
        await asyncio.Event().wait()
        return None

    cut_off = asyncio.create_task(schedule.release(hanging, limit=10))
    await sealed_once.wait()
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)

    assert await bodies(store) == []
    assert len((await schedule.release(sealing, limit=10)).sent) == 1


async def test_two_replicas_release_each_row_once(store: SqlStore, schedule: Schedule) -> None:
    messages = [a_message(draft=str(number).encode()) for number in range(20)]
    for message in messages:
        await schedule.add(message)

    first, second = await asyncio.gather(schedule.release(sealing, limit=10), schedule.release(sealing, limit=10))
    rest = await schedule.release(sealing, limit=20)

    sent = [*first.sent, *second.sent, *rest.sent]
    assert sorted(sent) == sorted(message.message_id for message in messages)
    assert sorted(await bodies(store)) == sorted(b"sealed " + message.draft for message in messages)


async def test_of_a_cancellation_and_a_release_at_once_exactly_one_wins(store: SqlStore, schedule: Schedule) -> None:
    messages = [a_message(draft=str(number).encode()) for number in range(20)]
    for message in messages:
        await schedule.add(message)

    async with asyncio.TaskGroup() as group:
        releasing = group.create_task(schedule.release(sealing, limit=100))
        cancelling = [group.create_task(schedule.cancel(message.message_id)) for message in messages]
    rest = await schedule.release(sealing, limit=100)

    cancelled = {
        message.message_id
        for message, told in zip(messages, cancelling, strict=True)
        if told.result() is Cancellation.CANCELLED
    }
    sent = {*releasing.result().sent, *rest.sent}
    assert cancelled | sent == {message.message_id for message in messages}
    assert cancelled & sent == set()
    assert len(await bodies(store)) == len(sent)


async def test_a_handlers_schedule_and_cancellation_end_with_its_transaction(
    store: SqlStore, schedule: Schedule
) -> None:
    kept, other = a_message(FUTURE_MS), a_message(FUTURE_MS)
    await schedule.add(other)

    for commits in (False, True):
        reservation = await begun(store)
        unit = reservation.unit  # type: ignore[attr-defined]
        await unit.schedule(kept)
        told = await unit.cancel(other.message_id)
        await (store.inbox.complete(reservation) if commits else store.inbox.release(reservation))  # type: ignore[arg-type]
        waiting = {row.message_id for row in await schedule.waiting(limit=10)}

        assert told is Cancellation.CANCELLED
        assert waiting == ({kept.message_id} if commits else {other.message_id})


async def test_rows_that_ended_long_ago_are_removed_and_no_others(
    store: SqlStore, schedule: Schedule, engine: AsyncEngine
) -> None:
    old, fresh, waits = a_message(), a_message(), a_message(FUTURE_MS)
    for message in (old, fresh, waits):
        await schedule.add(message)
    await schedule.release(sealing, limit=10)
    async with engine.begin() as connection:
        await connection.execute(
            update(SCHEDULE)
            .where(SCHEDULE.c.message_id == old.message_id)
            .values(ended_at_ms=SCHEDULE.c.ended_at_ms - ENDED_KEPT_MS - 60_000)
        )

    assert await store.purge() == 1

    told = [await schedule.cancel(message.message_id) for message in (old, fresh, waits)]
    assert told == [Cancellation.UNKNOWN, Cancellation.SENT, Cancellation.CANCELLED]
