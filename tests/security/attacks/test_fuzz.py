"""Arbitrary and mutated bytes, by properties: through the consume path, and at the parsers of keys and bundles."""

import asyncio
from typing import Any, Final

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging.security.outer import split_parts
from tests.fuzz.targets import (
    BUNDLE,
    CLASSIC,
    HYBRID,
    KEYRING,
    SEALED_KEYRING,
    Bench,
    bundle_target,
    keyring_target,
)
from tests.support.arena import Arena, GetOrder, OrderPlaced, PlaceOrder
from tests.support.realm import resign

pytestmark = pytest.mark.attack(68)

# What the consume path may make of an attack; anything else is an error that is not ours.
WORDS: Final = ("skipped.", "refused.", "buried", "deferred")
CALM: Final = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
MANY: Final = settings(CALM, max_examples=300)

Edit = tuple[int, int, bytes]
edits: Final = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4
)
plain: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=34), inner, max_size=18),
    max_leaves=30,
)


def mutated(body: bytes, changes: list[Edit]) -> bytes:
    """Return bytes with pieces cut out and others put in."""
    for at, size, piece in changes:
        place = at % (len(body) + 1)
        body = body[:place] + piece + body[place + size :]
    return body


def struck(bodies: list[bytes], service: str, part: str) -> dict[str, int]:
    """Return the counters of a service after an attack, having checked that no handler ran and nothing is left."""

    async def attack() -> dict[str, int]:
        async with Arena() as arena:
            outcome = await arena.struck(*bodies, service=service, part=part)
            assert all(run.service != service for run in outcome.ran)
            assert outcome.left == 0
            return dict(outcome.counts)

    return asyncio.run(attack())


def assert_ours(counts: dict[str, int], expected: int) -> None:
    """Check that every delivery ended in one of the foreseen ways."""
    assert all(word.startswith(WORDS) for word in counts)
    assert sum(counts.values()) == expected


QUEUES: Final = st.sampled_from(
    [("orders", "commands"), ("orders", "requests"), ("users", "events"), ("users", "faults")]
)


@CALM
@given(bodies=st.lists(st.binary(max_size=2_000), min_size=1, max_size=20), queue=QUEUES)
def test_arbitrary_bytes_are_refused(bodies: list[bytes], queue: tuple[str, str]) -> None:
    assert_ours(struck(bodies, *queue), len(bodies))


@CALM
@given(
    chosen=st.lists(st.tuples(st.sampled_from(list(CLASSIC.whole.values())), edits), min_size=1, max_size=20),
    queue=QUEUES,
)
def test_mutated_messages_are_refused(chosen: list[tuple[bytes, list[Edit]]], queue: tuple[str, str]) -> None:
    # Of another realm altogether, so that even an edit that changes nothing cannot run.
    bodies = [mutated(body, changes) for body, changes in chosen]

    assert_ours(struck(bodies, *queue), len(bodies))


@CALM
@given(
    kind=st.sampled_from([PlaceOrder, GetOrder, OrderPlaced]),
    places=st.lists(st.tuples(st.integers(0, 16), plain), min_size=1, max_size=20),
)
def test_headers_with_any_value_anywhere_are_refused_although_signed(
    kind: Any, places: list[tuple[int, object]]
) -> None:
    service, part = {PlaceOrder: ("orders", "commands"), GetOrder: ("orders", "requests")}.get(
        kind, ("users", "events")
    )

    async def attack() -> tuple[dict[str, int], int]:
        async with Arena() as arena:
            bodies = []
            for place, value in places:
                body = arena.sealed(kind())
                header = msgpack.unpackb(split_parts(body).header)
                if header[place] == value and type(header[place]) is type(value):
                    continue
                header[place] = value
                signer = arena.realm.signer("orders" if kind is OrderPlaced else "users")
                bodies.append(resign(body, signer, header=bytes(msgpack.packb(header))[:4_096]))
            outcome = await arena.struck(*bodies, service=service, part=part)
            assert all(run.service != service for run in outcome.ran)
            return dict(outcome.counts), len(bodies)

    counts, expected = asyncio.run(attack())
    answered = counts.pop("handled", 0)
    assert answered == 0 or part == "requests"
    assert_ours(counts, expected - answered)


@CALM
@given(contents=st.lists(st.binary(max_size=1_000) | plain.map(msgpack.packb), min_size=1, max_size=10))
def test_payloads_of_any_shape_are_handled_or_buried(contents: list[bytes]) -> None:
    async def attack() -> dict[str, int]:
        async with Arena() as arena:
            outcome = await arena.struck(*(arena.sealed(payload=payload) for payload in contents))
            assert all(type(run.message.note) is str for run in outcome.ran if run.service == "orders")
            return dict(outcome.counts)

    counts = asyncio.run(attack())

    assert counts.keys() <= {"handled", "buried"}
    assert sum(counts.values()) == len(contents)


@MANY
@pytest.mark.parametrize("bench", [CLASSIC, HYBRID], ids=["suite 1", "suite 2"])
@given(selector=st.integers(0, 6), raw=st.binary(max_size=1_000) | plain.map(msgpack.packb))
def test_every_part_that_a_sender_could_make_is_read_or_refused(bench: Bench, selector: int, raw: bytes) -> None:
    bench.open(bytes((selector,)) + raw)


@MANY
@pytest.mark.parametrize("bench", [CLASSIC, HYBRID], ids=["suite 1", "suite 2"])
@given(changes=edits, kind=st.sampled_from(sorted(CLASSIC.whole)))
def test_mutated_messages_raise_nothing_but_refusals(bench: Bench, changes: list[Edit], kind: str) -> None:
    bench.open(b"\x00" + mutated(bench.whole[kind], changes))
    bench.open(b"\x04" + mutated(bench.whole[kind], changes))


@MANY
@given(raw=st.binary(max_size=500) | st.tuples(st.just(BUNDLE), edits).map(lambda given: mutated(*given)))
def test_bundles_of_any_bytes_are_refused_in_our_words(raw: bytes) -> None:
    bundle_target(raw)


@MANY
@given(
    raw=st.binary(max_size=500)
    | st.text().map(str.encode)
    | st.tuples(st.sampled_from([KEYRING, SEALED_KEYRING]), edits).map(lambda given: mutated(*given))
)
def test_key_files_of_any_bytes_are_refused_in_our_words(raw: bytes) -> None:
    keyring_target(raw)
