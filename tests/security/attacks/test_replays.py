"""Replays: an operator's wrapper is checked like any message, and what is inside it as well."""

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import pytest

from messaging import Context, Reject
from messaging.operators import open_operator
from messaging.security.outer import split_parts
from tests.support.arena import Arena, CancelOrder, GetOrder, OrderPlaced, Outcome, PlaceOrder
from tests.support.realm import DAY_MS, START_MS, resign

Edit = Callable[[dict[str, Any]], object]
FORCE: Final = {"reason": "a test", "force": True}


async def rejects(_message: object, _context: Context) -> None:
    """Fail for good."""
    raise Reject("never")


async def buried(arena: Arena, body: bytes, *, part: str = "commands") -> bytes:
    """Let orders bury a message, and return it."""
    arena.behave["orders"] = rejects
    outcome = await arena.struck(body, part=part)
    arena.behave.pop("orders")
    assert len(outcome.dead) == 1
    return body


def let(**grant: object) -> Edit:
    """Return the edit that leaves the operator with one replay grant."""

    def edit(payload: dict[str, Any]) -> None:
        payload["policy"]["replay"] = [{"operator": "ops:alice", "to": "orders", "force": False} | grant]

    return edit


@pytest.mark.attack(56)
async def test_a_replay_runs_once_however_often_it_comes(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original, headers={"reason": "mended"})

    first = await arena.struck(replay)
    again = await arena.struck(replay, replay)

    first.assert_ran()
    assert first.ran[0].context.replayed_by == "ops:alice"
    assert first.ran[0].context.replay_reason == "mended"
    assert again.ran == ()
    assert set(again.counts) <= {"skipped.duplicate", "refused.duplicate"}


@pytest.mark.attack(56)
async def test_another_replay_of_what_a_replay_has_done_is_refused(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    (await arena.struck(arena.realm.replay(original))).assert_ran()
    second = arena.realm.replay(original)

    outcome = await arena.struck(second)

    outcome.assert_refused("duplicate", second)


@pytest.mark.attack(56)
async def test_the_bytes_inside_a_replay_do_not_run_alone(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())

    outcome = await arena.struck(original)

    outcome.assert_skipped("duplicate")


@pytest.mark.attack(57)
async def test_a_replay_without_a_grant_is_refused(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original)

    def nothing(payload: dict[str, Any]) -> None:
        payload["policy"]["replay"] = []

    arena.realm.publish(nothing)
    outcome = await arena.struck(replay)

    outcome.assert_refused("policy", replay)


@pytest.mark.attack(57)
async def test_a_replay_that_names_another_leaf_is_refused(arena: Arena) -> None:
    original, other = await buried(arena, arena.sealed()), arena.sealed()
    replay = arena.realm.replay(original, bind=split_parts(other).leaf())

    outcome = await arena.struck(replay)

    outcome.assert_refused("audience", replay)


@pytest.mark.attack(57)
@pytest.mark.parametrize("inside", ["replay", "reply", "request", "fault", "event"])
async def test_only_what_may_be_replayed_is(arena: Arena, inside: str) -> None:
    command = arena.sealed()
    made: dict[str, Callable[[], tuple[bytes, str]]] = {
        "replay": lambda: (arena.realm.replay(command), "orders.place_order"),
        "reply": lambda: (arena.realm.reply(arena.sealed(GetOrder()), payload=b"\x80"), "orders.get_order"),
        "request": lambda: (arena.sealed(GetOrder()), "orders.get_order"),
        "fault": lambda: (arena.realm.fault(command), "orders.place_order"),
        "event": lambda: (arena.sealed(OrderPlaced()), "orders.order_placed"),
    }
    inner, name = made[inside]()
    replay = arena.realm.replay(inner, name=name)

    outcome = await arena.struck(replay)

    outcome.assert_refused("audience", replay)


@pytest.mark.attack(57)
@pytest.mark.parametrize("junk", [b"", b"junk", b"\x98\x01", bytes(1_000)])
async def test_junk_inside_a_replay_is_refused_and_no_forgery(arena: Arena, junk: bytes) -> None:
    replay = arena.realm.replay(arena.sealed(), payload=junk)

    outcome = await arena.struck(replay)

    outcome.assert_refused("malformed", replay)


@pytest.mark.attack(57)
async def test_a_replay_in_another_codec_is_buried(arena: Arena) -> None:
    # Authentic and open, and not what a replay is: content that failed.
    replay = arena.realm.replay(arena.sealed(), codec=0)

    outcome = await arena.struck(replay)

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == 1
    assert len(outcome.refused) + len(outcome.dead) == 1
    assert outcome.quarantined == ()


@pytest.mark.attack(57)
@pytest.mark.parametrize(("reason", "code"), [("compromise", "skipped"), ("retired", "refused")])
async def test_a_replay_under_a_revoked_operator_key_never_runs(arena: Arena, reason: str, code: str) -> None:
    replay = arena.realm.replay(await buried(arena, arena.sealed()))
    arena.realm.publish(arena.realm.revoke("ops:alice", reason))

    outcome = await arena.struck(replay)

    assert outcome.ran == ()
    assert dict(outcome.counts) == {f"{code}.unknown_key": 1}
    assert len(outcome.quarantined if reason == "compromise" else outcome.refused) == 1


@pytest.mark.attack(57)
async def test_a_replay_of_what_a_compromised_sender_signed_never_runs(arena: Arena) -> None:
    replay = arena.realm.replay(await buried(arena, arena.sealed()))
    arena.realm.publish(arena.realm.revoke("users", "compromise"))

    outcome = await arena.struck(replay)

    outcome.assert_refused("unknown_key", replay)


@pytest.mark.attack(57)
async def test_a_replay_for_another_queue_is_refused(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original, name="orders.order_placed", audience="users", part="events")

    elsewhere = await arena.struck(replay)
    at_users = await arena.struck(replay, service="users", part="events")

    elsewhere.assert_refused("audience", replay)
    at_users.assert_refused("audience", replay)


@pytest.mark.attack(57)
async def test_an_expired_replay_does_not_run(arena: Arena) -> None:
    replay = arena.realm.replay(await buried(arena, arena.sealed()), expires_at_ms=START_MS + 1_000)
    arena.clock.advance(62)

    outcome = await arena.struck(replay)
    again = await arena.struck(replay)

    outcome.assert_buried()
    again.assert_skipped("duplicate")


@pytest.mark.attack(57)
async def test_what_an_expired_replay_held_is_dead_again_and_can_be_replayed(arena: Arena) -> None:
    await buried(arena, arena.sealed(PlaceOrder(note="patient")))
    async with open_operator(arena.settings, "ops:alice", ambient=arena.clock.ambient) as operator:
        await arena.services["orders"].stop()
        await operator.dead_letters.replay("orders", reason="too early")
        arena.clock.advance(25 * 3600)
        await arena.start("orders")
        await arena.settled()
        (letter,) = await operator.dead_letters.list("orders")
        before = len(arena.ran)
        await operator.dead_letters.replay("orders", reason="in time")
        await arena.settled()

    assert (letter.message_name, letter.fault.error, letter.fault.replays) == ("orders.place_order", "expired", 1)
    assert letter.is_replayable
    assert [run.message.note for run in arena.ran[before:]] == ["patient"]
    assert arena.bodies("orders", "dead") == []


@pytest.mark.attack(58)
@pytest.mark.parametrize("part", ["header", "block", "content", "signature"])
async def test_edited_bytes_inside_a_replay_never_run(arena: Arena, part: str) -> None:
    original = await buried(arena, arena.sealed())
    whole = getattr(split_parts(original), part)
    at = original.index(whole) + len(whole) - 1
    edited = original[:at] + bytes((original[at] ^ 1,)) + original[at + 1 :]
    replay = arena.realm.replay(original, payload=edited, bind=split_parts(edited).leaf())

    outcome = await arena.struck(replay)

    assert outcome.ran == ()
    assert outcome.refused == (replay,)
    assert outcome.quarantined == ()
    assert outcome.counts.keys() <= {"refused.signature", "refused.malformed"}


@pytest.mark.attack(58)
async def test_an_operator_cannot_write_a_message_for_somebody(arena: Arena) -> None:
    signer = arena.realm.signer("ops:alice")
    original = await buried(arena, arena.sealed())
    written = resign(original, signer)
    replay = arena.realm.replay(original, payload=written, bind=split_parts(written).leaf())

    outcome = await arena.struck(replay)

    outcome.assert_refused("signature", replay)


@pytest.mark.attack(59)
async def test_a_finished_message_is_replayed_by_force_alone(arena: Arena) -> None:
    original = arena.sealed()
    (await arena.struck(original)).assert_ran()
    plain, forced = arena.realm.replay(original), arena.realm.replay(original, headers=FORCE)

    without = await arena.struck(plain)
    ungranted = await arena.struck(forced)
    arena.realm.publish(let(name="orders.*", force=True))
    granted = await arena.struck(arena.realm.replay(original, headers=FORCE))

    without.assert_refused("duplicate", plain)
    ungranted.assert_refused("policy", forced)
    granted.assert_ran()


@pytest.mark.attack(59)
async def test_an_unknown_old_message_is_replayed_by_force_alone(arena: Arena) -> None:
    old = arena.sealed(issued_at_ms=START_MS - 8 * DAY_MS, expires_at_ms=START_MS - 2 * DAY_MS)
    plain = arena.realm.replay(old)

    without = await arena.struck(plain)
    arena.realm.publish(let(name="orders.*", force=True))
    granted = await arena.struck(arena.realm.replay(old, headers=FORCE))

    without.assert_refused("audience", plain)
    # The data key is not of the time of its wrapping; that is checked as always, and here it was made today.
    assert granted.refused == ()
    assert len(granted.ran) + len(granted.dead) == 1


@pytest.mark.attack(59)
@pytest.mark.parametrize("claim", [1, "true", b"\x01", None, [True]])
async def test_force_is_true_and_nothing_like_it(arena: Arena, claim: object) -> None:
    arena.realm.publish(let(name="orders.*", force=True))
    original = arena.sealed()
    (await arena.struck(original)).assert_ran()
    replay = arena.realm.replay(original, headers={"reason": "x", "force": claim})

    outcome = await arena.struck(replay)

    outcome.assert_refused("duplicate", replay)


@pytest.mark.attack(72)
async def test_a_retired_key_replays_what_failed_and_nothing_else(arena: Arena) -> None:
    mid = uuid4()
    failed = await buried(arena, arena.sealed(PlaceOrder(note="failed"), id=mid))
    other = arena.sealed(PlaceOrder(note="other"), id=mid)
    fresh = arena.sealed(PlaceOrder(note="fresh"))
    arena.realm.publish(arena.realm.revoke("users", "retired"))
    replays = [arena.realm.replay(inner) for inner in (other, fresh, failed)]

    of_other, of_fresh, of_failed = [await arena.struck(replay) for replay in replays]

    of_other.assert_refused("unknown_key", replays[0])
    of_fresh.assert_refused("unknown_key", replays[1])
    of_failed.assert_ran()
    assert of_failed.ran[0].message.note == "failed"


@pytest.mark.attack(73)
async def test_a_replay_that_comes_twice_while_it_fails_runs_once_more(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original)
    arena.behave["orders"] = rejects
    before = len(arena.ran)

    outcome = await arena.struck(replay, replay)

    runs = [run for run in arena.ran[before:] if run.service == "orders"]
    assert len(runs) == 1
    assert outcome.counts["buried"] == 1
    assert len(outcome.dead) == 1
    assert sum(outcome.counts.values()) == 2


@pytest.mark.attack(73)
async def test_a_replay_that_is_tried_again_is_one_replay(arena: Arena) -> None:
    async def fails(_message: object, _context: Context) -> None:
        raise ConnectionError("not yet")

    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original)
    arena.behave["orders"] = fails
    first = await arena.struck(replay)
    arena.behave.pop("orders")

    then = await arena.elapsed(2)
    late = await arena.struck(replay)

    assert first.waiting == 1
    assert dict(then.counts) == {"handled": 1}
    assert [run.context.replayed_by for run in then.ran] == ["ops:alice"]
    assert late.ran == ()


@pytest.mark.attack(74)
async def test_a_grant_for_one_name_replays_no_other(arena: Arena) -> None:
    original = await buried(arena, arena.sealed(CancelOrder()))
    honest = arena.realm.replay(original, name="orders.cancel_order")
    disguised = arena.realm.replay(original, name="orders.place_order")
    arena.realm.publish(let(name="orders.place_order"))

    of_honest, of_disguised = await arena.struck(honest), await arena.struck(disguised)

    of_honest.assert_refused("policy", honest)
    # Under another name it is not what its wrapper says.
    of_disguised.assert_refused("audience", disguised)


@pytest.mark.attack(74)
async def test_a_grant_for_one_service_replays_in_no_other(arena: Arena) -> None:
    original = await buried(arena, arena.sealed())
    replay = arena.realm.replay(original)
    arena.realm.publish(let(name="orders.*", to="users"))

    outcome = await arena.struck(replay)

    outcome.assert_refused("policy", replay)


@pytest.mark.attack(74)
async def test_a_sender_whose_own_grant_is_gone_is_not_replayed(arena: Arena) -> None:
    replay = arena.realm.replay(await buried(arena, arena.sealed()))

    def denied(payload: dict[str, Any]) -> None:
        payload["policy"]["send"] = []

    arena.realm.publish(denied)
    outcome = await arena.struck(replay)

    outcome.assert_refused("policy", replay)


@pytest.mark.attack(57)
async def test_a_replay_of_an_event_reaches_the_failing_service_alone(arena: Arena) -> None:
    async def fails(_message: object, _context: Context) -> None:
        raise Reject("never")

    arena.behave["users"] = fails
    event = arena.sealed(OrderPlaced())
    dead: Outcome = await arena.struck(event, service="users", part="events")
    arena.behave.pop("users")
    replay = arena.realm.replay(event, name="orders.order_placed", audience="users", part="events")

    outcome = await arena.struck(replay, service="users", part="events")

    assert len(dead.dead) == 1
    outcome.assert_ran()
    assert [run.service for run in arena.ran] == ["users", "users"]
    assert arena.bodies("billing", "events") == []
