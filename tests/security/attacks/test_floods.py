"""Floods: a forger can cost time, and nothing else that grows."""

import os
from itertools import chain, islice, repeat
from typing import Final

import pytest

from messaging.core.topology import QUARANTINE_MAX_MESSAGES
from messaging.security.content import split_fault
from messaging.security.keys import SigningKey
from tests.security.attacks.catalogue import EXPIRED_AMONG, FORGED_SENDERS, REPEATS
from tests.support.arena import Arena, GetOrder, OrderPlaced
from tests.support.flooding import flooded, forged
from tests.support.logs import Logs
from tests.support.measuring import measured
from tests.support.realm import NAMES, START_MS, resign

FLOOD: Final = 6_000
PER_SECOND: Final = 10
MID_AT: Final = 8


@pytest.mark.attack(70)
async def test_real_messages_flow_through_a_flood_of_forgeries(arena: Arena) -> None:
    genuine = [arena.sealed() for _ in range(100)]
    flood = list(forged(arena.sealed(), FLOOD))
    step = len(flood) // len(genuine)
    mixed = [body for at, real in enumerate(genuine) for body in (*flood[at * step : (at + 1) * step], real)]

    outcome = await arena.struck(*mixed)

    assert len(outcome.ran) == len(genuine)
    assert dict(outcome.counts) == {"handled": len(genuine), "skipped.signature": len(flood)}
    assert len(outcome.quarantined) <= PER_SECOND
    assert (outcome.refused, outcome.dead, outcome.waiting, outcome.left) == ((), (), 0, 0)
    assert arena.services["orders"].health.is_ready


@pytest.mark.attack(70)
async def test_a_flood_leaves_nothing_behind_in_memory(arena: Arena) -> None:
    body = arena.sealed()
    await arena.struck(*forged(body, 500))
    queue = NAMES.queue("orders", "commands")

    with measured() as cost:
        for _ in range(10):
            for one in forged(body, 300):
                arena.inject(one)
            await arena.settled()
            assert arena.broker.bodies(queue) == []

    # One batch of the flood at a time is what there is to be seen of it.
    assert cost.peak_bytes < 300 * (len(body) + 6_000)
    assert arena.counts("orders")["skipped.signature"] == 3_500


@pytest.mark.attack(70)
async def test_samples_of_a_long_flood_are_bounded(arena: Arena) -> None:
    body = arena.sealed()
    for _ in range(120):
        arena.clock.advance(1)
        await arena.struck(*forged(body, 20))

    assert len(arena.bodies("orders", "quarantine")) == min(120 * PER_SECOND, QUARANTINE_MAX_MESSAGES)


@pytest.mark.attack(70)
async def test_a_flood_of_requests_and_replies_is_not_answered(arena: Arena) -> None:
    requests = list(forged(arena.sealed(GetOrder()), 1_000))
    events = list(forged(arena.sealed(OrderPlaced()), 1_000))

    of_requests = await arena.struck(*requests, part="requests")
    of_events = await arena.struck(*events, service="users", part="events")

    of_requests.assert_forged("signature", times=1_000)
    of_events.assert_forged("signature", times=1_000)


@pytest.mark.attack(80)
async def test_what_expired_in_a_flood_is_buried_as_expired(arena: Arena) -> None:
    late = arena.sealed(expires_at_ms=START_MS + 1_000)
    forgeries = forged(late, EXPIRED_AMONG // 5)
    junk = (os.urandom(64) for _ in range(EXPIRED_AMONG - EXPIRED_AMONG // 5))
    bodies = chain(forgeries, islice(junk, EXPIRED_AMONG // 2), [late], junk)
    arena.clock.advance(62)

    flood = await flooded(arena, bodies)

    (letter,) = flood.dead
    opener = arena.realm.opener("orders")
    original, fault = split_fault(opener.decrypt(opener.verify_archived(letter)))
    assert original == late
    assert fault["error"] == "expired"
    assert flood.counts["buried"] == 1
    assert flood.counts.total() == EXPIRED_AMONG + 1
    assert flood.kept == []
    assert flood.quarantined <= PER_SECOND


@pytest.mark.attack(87)
async def test_forged_senders_make_no_metric_and_few_log_lines(arena: Arena, logs: Logs) -> None:
    stranger = SigningKey.generate("test")
    body = arena.sealed()
    bodies = (
        resign(body, stranger, fields={3: f"s{number:x}", 4: os.urandom(8), MID_AT: os.urandom(16)})
        for number in range(FORGED_SENDERS)
    )
    (await arena.struck(b"junk")).assert_forged("malformed")
    series = set(arena.counts("orders"))
    arena.clock.advance(1)
    before = len(logs.entries)

    flood = await flooded(arena, bodies)

    flood.assert_forged("unknown_key", times=FORGED_SENDERS, samples=PER_SECOND)
    assert set(arena.counts("orders")) - series == {"skipped.unknown_key"}
    assert len(logs.entries) - before <= PER_SECOND
    assert all(entry["event"] == "delivery.quarantined" for entry in logs.entries[before:])
    arena.clock.advance(1)
    await arena.struck(b"junk")
    assert logs.entries[-1]["suppressed"] == FORGED_SENDERS - PER_SECOND


@pytest.mark.attack(87)
async def test_forged_senders_from_the_future_make_few_log_lines(arena: Arena, logs: Logs) -> None:
    stranger = SigningKey.generate("test")
    body = arena.sealed()
    claims = [
        resign(body, stranger, fields={3: f"mallory{number}", 4: os.urandom(8), 16: {"bv": 10**6}})
        for number in range(200)
    ]
    before = len(logs.entries)

    await arena.struck(*claims)

    said = logs.entries[before:]
    # Those that wait and those that are turned away, each at their own bounded rate.
    assert len(said) <= 2 * PER_SECOND
    assert not any("mallory" in repr(entry) for entry in said)


@pytest.mark.attack(87)
async def test_a_message_sent_again_and_again_makes_few_log_lines(arena: Arena, logs: Logs) -> None:
    body = arena.sealed()
    (await arena.struck(body)).assert_ran()
    before = len(logs.entries)

    flood = await flooded(arena, repeat(body, REPEATS))

    assert (flood.counts, flood.quarantined, flood.kept) == ({"skipped.duplicate": REPEATS}, 0, [])
    assert len(logs.entries) - before <= PER_SECOND


@pytest.mark.attack(87)
async def test_no_word_of_a_forgery_is_in_a_log_line(arena: Arena, logs: Logs) -> None:
    stranger = SigningKey.generate("test")
    body = arena.sealed()
    before = len(logs.entries)

    await arena.struck(
        resign(body, stranger, fields={3: "mallory"}),
        resign(body, stranger, fields={2: "orders.mallory/1", 7: "orders.mallory.v1"}),
        resign(body, stranger, fields={16: {"bv": 1, "x": "mallory \x1b[31m"}}),
        b"mallory",
        body.replace(b"orders", b"mallor"),
    )

    assert len(logs.entries) > before
    assert not any("mallor" in repr(entry) for entry in logs.entries[before:])
