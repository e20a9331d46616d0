"""Bytes that come twice, processes that die, a store that is down: one run at most, one dead letter at least."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

import msgpack
import pytest

from messaging import Context, Reject
from messaging.core.codec import PAYLOAD_MAX_BYTES
from messaging.operators import open_operator
from messaging.security.outer import BODY_MAX, split_parts
from messaging.stores.base import InboxKey, Reservation, StoreUnavailableError
from messaging.stores.memory import MemoryInbox
from tests.security.attacks.catalogue import FORGED_IDS
from tests.support.arena import Arena, Charge, GetOrder, PlaceOrder
from tests.support.flooding import flooded, forged
from tests.support.realm import NAMES, START_MS
from tests.support.waiting import eventually, holds

MID_AT: Final = 8


class Store(MemoryInbox):
    """A store that may be down, and that a process may die beside."""

    def __init__(self, arena: Arena) -> None:
        super().__init__(ambient=arena.clock.ambient)
        self.is_down = False
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}

    async def reserve(self, key: InboxKey, **how: Any) -> Reservation:
        if self.is_down:
            raise StoreUnavailableError("the store does not answer")
        return await super().reserve(key, **how)

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        await self._passed(self.before, "complete")
        held = await super().complete(reservation, reply=reply)
        await self._passed(self.after, "complete")
        return held

    async def fail(self, reservation: Reservation) -> bool:
        await self._passed(self.before, "fail")
        held = await super().fail(reservation)
        await self._passed(self.after, "fail")
        return held

    async def _passed(self, places: dict[str, Callable[[], Awaitable[None]]], name: str) -> None:
        """Die here, the first time, if that is the plan."""
        die = places.pop(name, None)
        if die is not None:
            await die()


def dying(arena: Arena, name: str) -> Callable[[], Awaitable[None]]:
    """Return how the process of a service ends: without a word, and nothing that it began goes on."""

    async def die() -> None:
        arena.transport(name).kill()
        arena.services.pop(name)
        await asyncio.Event().wait()

    return die


async def two_replicas(arena: Arena) -> None:
    """Start a second replica of orders; both remember in one store."""
    store = Store(arena)
    arena.use_inbox("orders", store)
    await arena.start("orders", as_name="orders'", inbox=store)


@pytest.mark.attack(50)
async def test_the_same_bytes_run_once_in_one_process(arena: Arena) -> None:
    body = arena.sealed()
    (await arena.struck(body)).assert_ran()

    outcome = await arena.struck(*[body] * 50)

    outcome.assert_skipped("duplicate", times=50)


@pytest.mark.attack(50)
async def test_the_same_bytes_at_once_run_once(arena: Arena) -> None:
    async def slow(_message: object, _context: Context) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    (await arena.struck(arena.sealed())).assert_ran()
    arena.behave["orders"] = slow
    body = arena.sealed()

    await arena.struck(*[body] * 50)
    await arena.advance(3)

    assert len(arena.runs_of(mid_of(arena, body))) == 1
    assert arena.waiting("orders") == 0


@pytest.mark.attack(50)
async def test_the_same_bytes_run_once_in_two_processes_with_one_store(arena: Arena) -> None:
    await two_replicas(arena)
    warm = [arena.sealed() for _ in range(40)]
    await arena.struck(*warm)
    bodies = [arena.sealed() for _ in range(40)]

    await arena.struck(*bodies, *bodies, *reversed(bodies))
    await arena.advance(3)

    assert [len(arena.runs_of(mid_of(arena, body))) for body in bodies] == [1] * 40
    assert {run.service for run in arena.ran} == {"orders", "orders'"}


@pytest.mark.attack(50)
@pytest.mark.parametrize("hours", [2, 23])
async def test_bytes_that_were_kept_for_hours_do_not_run_again_while_they_are_alive(arena: Arena, hours: int) -> None:
    done, failed = arena.sealed(), arena.sealed()
    (await arena.struck(done)).assert_ran()
    await buried(arena, failed)
    arena.clock.advance(hours * 3600)
    await arena.struck(*(arena.sealed() for _ in range(20)))

    outcome = await arena.struck(done, failed)

    outcome.assert_skipped("duplicate", times=2)


@pytest.mark.attack(50)
async def test_a_repeated_request_is_answered_from_the_first_run(arena: Arena) -> None:
    body = arena.sealed(GetOrder())

    first = await arena.struck(body, part="requests")
    again = await arena.struck(body, part="requests")

    assert (len(first.ran), first.said) == (1, {"replies": 1})
    assert (len(again.ran), again.said) == (0, {"replies": 1})
    answers = [split_parts(answer) for answer in arena.said("replies")]
    assert {msgpack.unpackb(answer.header)[12] for answer in answers} == {split_parts(body).leaf()}


def mid_of(arena: Arena, body: bytes) -> Any:
    """Return the id of a message, whomever it is for."""
    return arena.realm.opener("orders").verify_archived(body).id


async def successor(arena: Arena, store: Store) -> None:
    """Wait until orders has died, and let another replica with the same store take over."""
    await eventually(lambda: "orders" not in arena.services, what="the first replica was dead")
    await arena.start("orders", as_name="orders'", inbox=store)
    await arena.settled()


@pytest.mark.attack(51)
async def test_a_crash_after_the_handler_does_not_run_it_again(arena: Arena) -> None:
    store = Store(arena)
    arena.use_inbox("orders", store)
    store.after["complete"] = dying(arena, "orders")

    arena.inject(arena.sealed())
    await successor(arena, store)

    assert [run.service for run in arena.ran] == ["orders"]
    assert arena.bodies("orders", "commands") == []
    assert arena.counts("orders'") == {"skipped.duplicate": 1}


@pytest.mark.attack(52)
async def test_a_crash_inside_the_handler_lets_it_run_again_once_the_lease_has_ended(arena: Arena) -> None:
    die, store = dying(arena, "orders"), Store(arena)
    arena.use_inbox("orders", store)

    async def dies(_message: object, _context: Context) -> None:
        await die()

    arena.behave["orders"] = dies
    body = arena.sealed()
    arena.inject(body)
    await successor(arena, store)
    while_leased = [run.service for run in arena.ran]
    await arena.advance(200)

    assert while_leased == ["orders"]
    assert [run.service for run in arena.ran] == ["orders", "orders'"]
    assert [run.context.attempt for run in arena.ran] == [1, 1]
    assert arena.bodies("orders", "commands") == []
    assert arena.broker.bodies(NAMES.rung("orders", 1_000)) == []


@pytest.mark.attack(53)
@pytest.mark.timeout(1_800)  # a million with ATTACKS_FULL
async def test_forged_ids_leave_no_trace_in_the_store(arena: Arena) -> None:
    (await arena.struck(arena.sealed())).assert_ran()
    body, sizes = arena.sealed(), [len(arena.inbox("orders"))]

    for times in (FORGED_IDS // 10, FORGED_IDS - FORGED_IDS // 10):
        flood = await flooded(arena, forged(body, times))
        flood.assert_forged("signature", times=times, samples=10)
        sizes.append(len(arena.inbox("orders")))

    assert sizes == [1, 1, 1]
    (await arena.struck(body)).assert_ran()


@pytest.mark.attack(53)
async def test_refused_messages_leave_no_row_that_stays(arena: Arena) -> None:
    rows = len(arena.inbox("orders"))
    denied = [arena.sealed(Charge()) for _ in range(200)]

    outcome = await arena.struck(*denied)

    assert dict(outcome.counts) == {"refused.audience": 200}
    assert len(arena.inbox("orders")) == rows


@pytest.mark.attack(54)
async def test_while_the_store_is_down_deliveries_are_held(arena: Arena) -> None:
    store = Store(arena)
    arena.use_inbox("orders", store)
    store.is_down = True
    orders, bodies = arena.services["orders"], [arena.sealed() for _ in range(3)]

    for body in bodies:
        arena.inject(body)
    await eventually(lambda: not orders.health.is_ready, what="orders said that it is not ready")
    await holds(lambda: len(arena.bodies("orders", "commands")) == 3 and not arena.ran, 0.3, what="all was held")
    store.is_down = False
    await eventually(lambda: len(arena.ran) == 3, what="all ran once the store was back")
    await arena.settled()

    assert orders.health.is_ready
    assert arena.counts("orders") == {"handled": 3}
    assert [run.context.attempt for run in arena.ran] == [1, 1, 1]


@pytest.mark.attack(54)
async def test_while_the_store_is_down_what_expired_is_held_too(arena: Arena) -> None:
    store = Store(arena)
    arena.use_inbox("orders", store)
    body = arena.sealed(expires_at_ms=START_MS + 1_000)
    arena.clock.advance(62)
    store.is_down = True

    arena.inject(body)
    await eventually(lambda: not arena.services["orders"].health.is_ready, what="orders said that it is not ready")
    await holds(lambda: arena.bodies("orders", "commands") == [body], 0.3, what="it was held")
    store.is_down = False
    await eventually(lambda: len(arena.bodies("orders", "dead")) == 1, what="it was buried once the store was back")
    await arena.settled()

    assert arena.counts("orders") == {"buried": 1}
    assert len(arena.said("dead")) == 1


@pytest.mark.attack(54)
@pytest.mark.parametrize("trouble", ["none", "expired"])
async def test_without_a_bundle_to_rely_on_deliveries_are_held(arena: Arena, trouble: str) -> None:
    store, orders = arena.realm.stores["orders"], arena.services["orders"]
    body, current = arena.sealed(), store.current
    if trouble == "none":
        store._current = None
    else:
        arena.clock.now_ms = current.expires_at_ms + 25 * 3_600_000

    arena.inject(body)
    arena.inject(b"no message")
    await eventually(lambda: not orders.health.is_ready, what="orders said that it is not ready")

    assert arena.ran == []
    assert body in arena.bodies("orders", "commands")
    assert [arena.bodies("orders", part) for part in ("dead", "refused")] == [[], []]
    store._current, arena.clock.now_ms = current, START_MS
    await eventually(lambda: len(arena.ran) == 1, what="it ran once the bundle was there")
    await arena.settled()
    assert orders.health.is_ready


async def buried(arena: Arena, body: bytes | None = None) -> tuple[bytes, bytes]:
    """Let orders reject a command; returns its bytes and the dead letter's."""

    async def rejects(_message: object, _context: Context) -> None:
        raise Reject("never")

    before = arena.behave.get("orders")
    arena.behave["orders"] = rejects
    original = arena.sealed() if body is None else body
    outcome = await arena.struck(original)
    arena.behave.pop("orders")
    if before is not None:
        arena.behave["orders"] = before
    (letter,) = outcome.dead
    return original, letter


@pytest.mark.attack(55)
async def test_what_failed_does_not_run_when_it_is_injected_again(arena: Arena) -> None:
    original, _ = await buried(arena)

    outcome = await arena.struck(original, original)

    outcome.assert_skipped("duplicate", times=2)


@pytest.mark.attack(55)
async def test_a_dead_letter_in_the_queue_of_commands_is_refused(arena: Arena) -> None:
    _, letter = await buried(arena)

    outcome = await arena.struck(letter)

    outcome.assert_refused("audience", letter)


@pytest.mark.attack(55)
async def test_a_dead_letter_is_dead_once_however_often_it_is_injected(arena: Arena) -> None:
    original, letter = await buried(arena)
    (first,) = [run for run in arena.ran if run.service == "users"]

    outcome = await arena.struck(letter, letter, service="users", part="faults")

    assert first.context.message_id == mid_of(arena, original)
    outcome.assert_skipped("duplicate", times=2)


@pytest.mark.attack(71)
async def test_other_bytes_never_run_under_a_recorded_id(arena: Arena) -> None:
    mid = uuid4()
    (await arena.struck(arena.sealed(PlaceOrder(note="first"), id=mid))).assert_ran()

    outcome = await arena.struck(arena.sealed(PlaceOrder(note="other"), id=mid))

    outcome.assert_skipped("duplicate.other_bytes")


@pytest.mark.attack(71)
async def test_other_bytes_never_run_under_the_id_of_what_failed(arena: Arena) -> None:
    mid = uuid4()
    await buried(arena, arena.sealed(PlaceOrder(note="first"), id=mid))
    other = arena.sealed(PlaceOrder(note="other"), id=mid)

    alone = await arena.struck(other)
    replayed = await arena.struck(arena.realm.replay(other))

    alone.assert_skipped("duplicate.other_bytes")
    assert replayed.ran == ()
    assert dict(replayed.counts) == {"skipped.duplicate.other_bytes": 1}


@pytest.mark.attack(71)
async def test_two_senders_may_use_one_id(arena: Arena) -> None:
    mid = uuid4()

    outcome = await arena.struck(arena.sealed(id=mid), arena.sealed(id=mid, sender="ops:alice"))

    outcome.assert_ran(times=2)


@pytest.mark.attack(79)
async def test_a_message_at_the_cap_is_buried_and_can_be_replayed(arena: Arena) -> None:
    note = "n" * (PAYLOAD_MAX_BYTES - 16)
    body = arena.sealed(PlaceOrder(note=note))
    original, letter = await buried(arena, body)

    async with open_operator(arena.settings, "ops:alice", ambient=arena.clock.ambient) as operator:
        (listed,) = await operator.dead_letters.list("orders")
        report = await operator.dead_letters.replay("orders", reason="a test")
    await arena.settled()

    assert PAYLOAD_MAX_BYTES < len(original) < len(letter) <= BODY_MAX
    assert listed.is_verified
    assert listed.is_replayable
    assert (report.replayed, report.failed) == (1, 0)
    last = arena.ran[-1]
    assert last.message.note == note
    assert last.context.replayed_by == "ops:alice"
    assert arena.bodies("orders", "dead") == []


@pytest.mark.attack(79)
async def test_a_message_at_the_cap_fails_again_as_a_replay_and_is_still_replayable(arena: Arena) -> None:
    await buried(arena, arena.sealed(PlaceOrder(note="n" * (PAYLOAD_MAX_BYTES - 16))))

    async def rejects(_message: object, _context: Context) -> None:
        raise Reject("still not")

    arena.behave["orders"] = rejects
    async with open_operator(arena.settings, "ops:alice", ambient=arena.clock.ambient) as operator:
        await operator.dead_letters.replay("orders", reason="a test")
        await arena.settled()
        (listed,) = await operator.dead_letters.list("orders")

    assert listed.is_replayable
    assert (listed.fault.attempts, listed.fault.replays) == (2, 1)


@pytest.mark.attack(84)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_while_burying_leaves_a_dead_letter(arena: Arena, moment: str) -> None:
    async def rejects(_message: object, _context: Context) -> None:
        raise Reject("never")

    arena.behave = dict.fromkeys(("orders", "orders'"), rejects)
    store = Store(arena)
    arena.use_inbox("orders", store)
    getattr(store, moment)["fail"] = dying(arena, "orders")

    arena.inject(arena.sealed())
    await successor(arena, store)
    await arena.advance(200)

    letters = arena.bodies("orders", "dead")
    assert len(letters) >= 1
    assert len({msgpack.unpackb(split_parts(letter).header)[MID_AT] for letter in letters}) == 1
    assert arena.bodies("orders", "commands") == []
    assert arena.broker.bodies(NAMES.rung("orders", 1_000)) == []
    # Whoever is told twice of one failure hears of it once.
    assert len([run for run in arena.ran if run.service == "users"]) == 1
