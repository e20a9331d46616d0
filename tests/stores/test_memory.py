"""The inbox in memory: the state table over time, bounded, and deaf to tokens that are no longer a row's."""

from uuid import UUID

import pytest

from messaging.core.inbox import Decision, Replaying, RowState
from messaging.stores import memory
from messaging.stores.base import InboxKey, Reservation, SeenBundle
from messaging.stores.memory import MemoryInbox, MemorySeenBundles
from messaging.stores.memory_rows import place_of
from messaging.testing.clock import FixedClock

LEAF, OTHER_LEAF, OUTER_LEAF = b"a" * 32, b"b" * 32, b"c" * 32
LEASE_S = 60.0
TTL_S = 3_600.0
IN_WINDOW = Replaying(in_window=True)
FORCED = Replaying(in_window=True, force=True)


def key(number: int = 1, sender: str = "users") -> InboxKey:
    return InboxKey("orders", sender, UUID(int=number))


OUTER = key(99, "ops:alice")


class Rig:
    """An inbox, its clock, and the shortest words for what is done with them."""

    def __init__(self, max_ids: int = 100) -> None:
        self.clock = FixedClock()
        self.inbox = MemoryInbox(ambient=self.clock.ambient, max_ids=max_ids, ttl_s=TTL_S)

    def later(self, seconds: float) -> None:
        self.clock.advance(round(seconds * 1000))

    async def deliver(self, number: int = 1, leaf: bytes = LEAF, lease_s: float = LEASE_S) -> Reservation:
        return await self.inbox.reserve(key(number), leaf=leaf, expires_at_ms=0, lease_s=lease_s)

    async def replay(
        self, replaying: Replaying = IN_WINDOW, leaf: bytes = LEAF, outer: InboxKey = OUTER, number: int = 1
    ) -> Reservation:
        return await self.inbox.reserve_replay(
            key(number),
            leaf=leaf,
            outer=outer,
            outer_leaf=OUTER_LEAF,
            replaying=replaying,
            expires_at_ms=0,
            lease_s=LEASE_S,
        )

    async def state(self, number: int = 1, leaf: bytes = LEAF) -> RowState:
        return await self.inbox.state(key(number), leaf=leaf)

    async def buried(self) -> None:
        assert await self.inbox.fail(await self.deliver())


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_message_runs_once(rig: Rig) -> None:
    first = await rig.deliver()
    meanwhile = await rig.deliver()
    completed = await rig.inbox.complete(first)
    after = await rig.deliver()

    assert (first.decision, meanwhile.decision, after.decision) == (Decision.RUN, Decision.DEFER, Decision.DROP)
    assert completed
    assert await rig.state() is RowState.DONE


async def test_each_service_sender_and_id_has_a_row_of_its_own(rig: Rig) -> None:
    await rig.deliver()

    other = await rig.inbox.reserve(key(1, "billing"), leaf=LEAF, expires_at_ms=0, lease_s=LEASE_S)

    assert other.decision is Decision.RUN
    assert (await rig.deliver(2)).decision is Decision.RUN
    assert len(rig.inbox) == 3


async def test_what_is_released_runs_again(rig: Rig) -> None:
    released = await rig.inbox.release(await rig.deliver())

    assert released
    assert await rig.state() is RowState.ABSENT
    assert (await rig.deliver()).decision is Decision.RUN


async def test_what_was_buried_never_runs_raw(rig: Rig) -> None:
    await rig.buried()

    assert await rig.state() is RowState.FAILED
    assert (await rig.deliver()).decision is Decision.DROP


@pytest.mark.parametrize("end", ["complete", "fail", None])
async def test_other_bytes_never_run_under_a_recorded_id(rig: Rig, end: str | None) -> None:
    reservation = await rig.deliver()
    if end is not None:
        await getattr(rig.inbox, end)(reservation)

    forged = await rig.deliver(leaf=OTHER_LEAF)

    assert forged.decision is Decision.OTHER_BYTES
    assert await rig.state(leaf=OTHER_LEAF) is RowState.ABSENT
    assert (await rig.replay(FORCED, leaf=OTHER_LEAF)).decision is Decision.OTHER_BYTES


async def test_a_crashed_holder_is_taken_over_and_wakes_up_without_rights(rig: Rig) -> None:
    stale = await rig.deliver()
    rig.later(LEASE_S)
    assert await rig.state() is RowState.LEASE_EXPIRED

    fresh = await rig.deliver()

    assert fresh.decision is Decision.RUN
    assert fresh.token != stale.token
    assert not await rig.inbox.complete(stale)
    assert not await rig.inbox.fail(stale)
    assert not await rig.inbox.release(stale)
    assert await rig.inbox.complete(fresh)


async def test_a_late_holder_that_nobody_took_over_still_ends_its_row(rig: Rig) -> None:
    reservation = await rig.deliver()
    rig.later(2 * LEASE_S)

    assert await rig.inbox.complete(reservation)
    assert await rig.state() is RowState.DONE


async def test_a_reservation_that_must_not_run_changes_nothing(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver())
    dropped = await rig.deliver()

    assert dropped.token is None
    assert not await rig.inbox.fail(dropped)
    assert not await rig.inbox.release(dropped)
    assert not await rig.inbox.complete(dropped)
    assert await rig.state() is RowState.DONE


async def test_a_row_that_was_never_there_cannot_end(rig: Rig) -> None:
    assert not await rig.inbox.complete(Reservation(key=key(), decision=Decision.RUN, token=1))


async def test_a_row_is_forgotten_after_its_time(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver())
    rig.later(TTL_S)

    assert await rig.state() is RowState.ABSENT
    assert (await rig.deliver(leaf=OTHER_LEAF)).decision is Decision.RUN


async def test_an_aged_row_does_not_come_back_when_its_successor_is_released(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver())
    rig.later(TTL_S)

    await rig.inbox.release(await rig.deliver(leaf=OTHER_LEAF))

    assert (await rig.deliver(leaf=OTHER_LEAF)).decision is Decision.RUN


async def test_another_run_in_the_process_goes_on_under_the_same_lease(rig: Rig) -> None:
    reservation = await rig.deliver()

    await rig.inbox.undo(reservation)
    renewed = await rig.inbox.renew(reservation)

    assert renewed == reservation
    assert await rig.inbox.complete(renewed)


# ---- answers of requests


async def test_a_repeated_request_finds_the_answer(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver(), reply=b"answer")

    again = await rig.deliver()

    assert (again.decision, again.reply) == (Decision.DROP, b"answer")


async def test_a_request_that_its_caller_sealed_anew_finds_the_answer_and_does_not_run(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver(), reply=b"answer")

    again = await rig.deliver(leaf=OTHER_LEAF)

    assert (again.decision, again.reply) == (Decision.OTHER_BYTES, b"answer")


async def test_kept_answers_are_bounded_in_bytes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT_REPLIES_MAX_BYTES", 10)
    for number, reply in ((1, b"x" * 8), (2, b"x" * 3), (3, b"x" * 2)):
        await rig.inbox.complete(await rig.deliver(number), reply=reply)

    kept = [(await rig.deliver(number)).reply for number in (1, 2, 3)]

    assert kept == [b"x" * 8, None, b"x" * 2]


async def test_a_forgotten_answer_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT_REPLIES_MAX_BYTES", 10)
    rig = Rig(max_ids=1)
    for number in (1, 2):
        await rig.inbox.complete(await rig.deliver(number), reply=b"x" * 8)

    assert (await rig.deliver(2)).reply == b"x" * 8


# ---- replays


async def test_a_replay_revives_what_failed_and_ends_with_it(rig: Rig) -> None:
    await rig.buried()

    replayed = await rig.replay()
    meanwhile = await rig.deliver()
    await rig.inbox.complete(replayed)

    assert (replayed.decision, replayed.key, replayed.outer) == (Decision.RUN, key(), OUTER)
    assert meanwhile.decision is Decision.DEFER
    assert await rig.state() is RowState.DONE
    assert (await rig.replay()).decision is Decision.DROP
    assert await rig.inbox.state(OUTER, leaf=OUTER_LEAF) is RowState.DONE


async def test_a_replay_that_fails_again_needs_a_new_one(rig: Rig) -> None:
    await rig.buried()
    await rig.inbox.fail(await rig.replay())

    same, new = await rig.replay(), await rig.replay(outer=key(98, "ops:alice"))

    assert (same.decision, same.key) == (Decision.DROP, OUTER)
    assert new.decision is Decision.RUN


async def test_a_replay_that_is_retried_comes_back_under_its_own_wrapper(rig: Rig) -> None:
    await rig.buried()
    await rig.inbox.release(await rig.replay())

    raw, again = await rig.deliver(), await rig.replay()

    assert (raw.decision, again.decision) == (Decision.DROP, Decision.RUN)


async def test_what_was_failed_before_a_replay_stays_so_for_its_full_time(rig: Rig) -> None:
    await rig.buried()
    await rig.inbox.release(await rig.replay())
    rig.later(2 * LEASE_S)

    assert await rig.state() is RowState.FAILED


async def test_a_replay_whose_worker_died_does_not_open_the_door_to_raw_bytes(rig: Rig) -> None:
    await rig.buried()
    await rig.replay()
    rig.later(LEASE_S)

    raw = await rig.deliver()
    again = await rig.replay()

    assert raw.decision is Decision.DROP
    assert again.decision is Decision.RUN


async def test_two_replays_at_once_run_one(rig: Rig) -> None:
    await rig.buried()

    first, second = await rig.replay(), await rig.replay(outer=key(98, "ops:bob"))

    assert (first.decision, second.decision) == (Decision.RUN, Decision.REFUSE)
    assert await rig.inbox.state(key(98, "ops:bob"), leaf=OUTER_LEAF) is RowState.ABSENT


async def test_what_ran_is_replayed_by_force_only(rig: Rig) -> None:
    await rig.inbox.complete(await rig.deliver())

    plain, forced = await rig.replay(), await rig.replay(FORCED)
    await rig.inbox.release(forced)

    assert (plain.decision, forced.decision) == (Decision.REFUSE, Decision.RUN)
    assert await rig.state() is RowState.DONE


async def test_what_the_inbox_never_saw_is_replayed_inside_the_window(rig: Rig) -> None:
    outside = await rig.replay(Replaying(in_window=False))
    inside = await rig.replay()
    await rig.inbox.release(inside)

    assert (outside.decision, inside.decision) == (Decision.REFUSE, Decision.RUN)
    assert await rig.state() is RowState.ABSENT
    assert len(rig.inbox) == 0


async def test_a_wrapper_with_other_bytes_is_refused(rig: Rig) -> None:
    await rig.buried()
    await rig.replay()

    forged = await rig.inbox.reserve_replay(
        key(2), leaf=LEAF, outer=OUTER, outer_leaf=OTHER_LEAF, replaying=FORCED, expires_at_ms=0, lease_s=LEASE_S
    )

    assert forged.decision is Decision.OTHER_BYTES


async def test_a_replay_ends_although_its_wrappers_row_was_pushed_out() -> None:
    rig = Rig(max_ids=2)
    await rig.buried()
    replayed = await rig.replay()
    rig.later(2 * LEASE_S)
    for number in (2, 3):
        await rig.deliver(number)

    assert not await rig.inbox.complete(replayed)

    rig = Rig()
    await rig.buried()
    replayed = await rig.replay()
    rows = rig.inbox._rows
    outer = rows.find(place_of(OUTER))
    assert outer is not None
    rows.forget(outer)

    assert await rig.inbox.complete(replayed)


async def test_the_row_to_be_replayed_is_not_pushed_out_by_its_own_wrapper() -> None:
    rig = Rig(max_ids=1)
    await rig.buried()

    await rig.inbox.release(await rig.replay())

    assert (await rig.deliver()).decision is Decision.DROP


# ---- bounds


async def test_the_oldest_go_when_there_are_too_many() -> None:
    rig = Rig(max_ids=3)
    for number in range(1, 6):
        await rig.inbox.complete(await rig.deliver(number))

    assert len(rig.inbox) == 3
    assert [await rig.state(number) for number in (2, 3)] == [RowState.ABSENT, RowState.DONE]


async def test_what_ended_last_stays_longest_whenever_it_began() -> None:
    rig = Rig(max_ids=3)
    slow = await rig.deliver(1)
    await rig.inbox.complete(await rig.deliver(2))
    await rig.inbox.complete(slow)
    for number in (3, 4):
        await rig.inbox.complete(await rig.deliver(number))

    states = [await rig.state(number) for number in (1, 2, 3, 4)]

    assert states == [RowState.DONE, RowState.ABSENT, RowState.DONE, RowState.DONE]


async def test_aged_rows_go_even_if_the_oldest_was_looked_at_shortly_before() -> None:
    rig = Rig()
    for number in range(4):
        await rig.inbox.complete(await rig.deliver(number))
    rig.later(TTL_S - 0.5)
    await rig.inbox.complete(await rig.deliver(7))
    rig.later(1.0)

    await rig.deliver(9)

    assert len(rig.inbox) == 2


async def test_a_live_lease_is_never_pushed_out() -> None:
    rig = Rig(max_ids=2)
    running = await rig.deliver(1)
    for number in range(2, 20):
        await rig.inbox.complete(await rig.deliver(number))

    assert (await rig.deliver(1)).decision is Decision.DEFER
    assert await rig.inbox.complete(running)
    assert len(rig.inbox) <= 3


async def test_live_leases_alone_may_exceed_the_bound() -> None:
    rig = Rig(max_ids=2)
    for number in range(10):
        await rig.deliver(number)

    assert len(rig.inbox) == 10
    rig.later(LEASE_S)
    for number in range(10, 14):
        await rig.deliver(number)
    assert len(rig.inbox) <= 4


async def test_aged_rows_go_although_there_is_room(rig: Rig) -> None:
    for number in range(4):
        await rig.inbox.complete(await rig.deliver(number))
    rig.later(TTL_S)

    await rig.deliver(9)

    assert len(rig.inbox) == 1


async def test_the_newest_trust_bundle_is_remembered() -> None:
    seen = MemorySeenBundles()
    bundles = [SeenBundle(version=version, digest=bytes([version]) * 32) for version in (3, 4, 2)]

    before = await seen.newest("prod")
    for bundle in (*bundles, SeenBundle(version=4, digest=b"x" * 32)):
        await seen.record("prod", bundle)

    assert before is None
    assert await seen.newest("prod") == bundles[1]
    assert await seen.newest("staging") is None
