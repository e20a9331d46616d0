"""Bytes that are no sealed message, or not in its one form: none is believed, and they cost next to nothing."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgpack
import pytest

from messaging.core.topology import routing_key
from messaging.errors import SealError
from messaging.security.outer import BODY_MAX, CONTENT_MAX, HEADER_MAX, join_parts, split_parts
from tests.support.arena import Arena, GetOrder, OrderPlaced
from tests.support.measuring import fastest_s, measured
from tests.support.realm import EVERY_KIND, NAMES, resign

QUEUES: Final = (("orders", "commands"), ("orders", "requests"), ("users", "events"), ("users", "faults"))
FLAT_BYTES: Final = 512 * 1024
BOMB_MAX_S: Final = 0.005


def parts_of(body: bytes) -> list[object]:
    """Return a message as the eight parts that a general decoder sees."""
    found: list[object] = msgpack.unpackb(body)
    return found


def edited(body: bytes, place: int, value: object) -> bytes:
    """Return a message with one of its eight parts replaced."""
    parts = parts_of(body)
    parts[place] = value
    return bytes(msgpack.packb(parts))


@pytest.mark.attack(1)
@pytest.mark.parametrize(("service", "part"), QUEUES)
@pytest.mark.parametrize("size", [0, 1, 2, 1024])
async def test_junk_is_counted_and_sampled(arena: Arena, service: str, part: str, size: int) -> None:
    body = b"\x00" + os.urandom(size - 1) if size else b""

    outcome = await arena.struck(body, service=service, part=part)

    outcome.assert_forged("malformed")
    assert outcome.quarantined == (body,)


@pytest.mark.attack(2)
async def test_no_beginning_of_a_message_is_accepted(arena: Arena) -> None:
    body = arena.sealed()
    (await arena.struck(body)).assert_ran()

    outcome = await arena.struck(*(body[:size] for size in range(len(body))))

    outcome.assert_forged("malformed", times=len(body))


@pytest.mark.attack(2)
async def test_no_end_of_a_message_is_accepted(arena: Arena) -> None:
    body = arena.sealed()

    outcome = await arena.struck(*(body[at:] for at in range(1, len(body))))

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == len(body) - 1
    assert outcome.counts.keys() <= {"skipped.malformed", "skipped.unsupported"}
    assert (outcome.refused, outcome.dead, outcome.waiting) == ((), (), 0)


@pytest.mark.attack(3)
@pytest.mark.parametrize("bits", [(0x01, 0x10, 0x80), (0x02, 0x08, 0x40)])
async def test_no_flipped_bit_is_accepted(arena: Arena, bits: tuple[int, ...]) -> None:
    body = arena.sealed()
    flipped = [body[:at] + bytes((body[at] ^ bit,)) + body[at + 1 :] for at in range(len(body)) for bit in bits]

    outcome = await arena.struck(*flipped)

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == len(flipped)
    assert all(word.startswith("skipped.") for word in outcome.counts)
    assert (outcome.refused, outcome.dead, outcome.waiting, outcome.said) == ((), (), 0, {})


@pytest.mark.attack(3)
@pytest.mark.parametrize("part", ["requests", "events"])
async def test_no_flipped_bit_of_another_kind_is_accepted(arena: Arena, part: str) -> None:
    service, body = (
        ("orders", arena.sealed(GetOrder())) if part == "requests" else ("users", arena.sealed(OrderPlaced()))
    )
    flipped = [body[:at] + bytes((body[at] ^ 1 << at % 8,)) + body[at + 1 :] for at in range(len(body))]

    outcome = await arena.struck(*flipped, service=service, part=part)

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == len(flipped)
    assert all(word.startswith("skipped.") for word in outcome.counts)
    assert (outcome.refused, outcome.dead, outcome.waiting, outcome.said) == ((), (), 0, {})


@pytest.mark.attack(4)
@pytest.mark.parametrize("tail", [b"\x00", b"\xc0", b"\x93", bytes(range(100, 200))])
async def test_bytes_after_the_end_are_refused(arena: Arena, tail: bytes) -> None:
    outcome = await arena.struck(arena.sealed() + tail)

    outcome.assert_forged("malformed")


@pytest.mark.attack(4)
async def test_two_messages_in_one_body_are_refused(arena: Arena) -> None:
    outcome = await arena.struck(arena.sealed() + arena.sealed())

    outcome.assert_forged("malformed")


@pytest.mark.attack(4)
async def test_bytes_after_the_end_of_the_header_are_refused_although_signed(arena: Arena) -> None:
    body = arena.sealed()

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), header=split_parts(body).header + b"\xc0"))

    outcome.assert_forged("malformed")


@pytest.mark.attack(5)
@pytest.mark.parametrize(
    "shape",
    [
        lambda parts: parts[:7],
        lambda parts: [*parts, 0],
        lambda parts: [*parts, b""],
        lambda parts: dict(enumerate(parts)),
        lambda parts: [parts],
        lambda parts: bytes(msgpack.packb(parts)),
        lambda _: [],
        lambda _: {},
        lambda _: None,
    ],
)
async def test_another_shape_is_refused(arena: Arena, shape: Callable[[list[object]], object]) -> None:
    outcome = await arena.struck(bytes(msgpack.packb(shape(parts_of(arena.sealed())))))

    outcome.assert_forged("malformed")


@pytest.mark.attack(5)
async def test_a_longer_encoding_of_the_same_array_is_refused(arena: Arena) -> None:
    body = arena.sealed()

    outcome = await arena.struck(b"\xdc\x00\x08" + body[1:], b"\xdd\x00\x00\x00\x08" + body[1:])

    outcome.assert_forged("malformed", times=2)


@pytest.mark.attack(6)
@pytest.mark.parametrize(
    ("places", "values"),
    [
        ((0,), (True, 1.0, "1", b"\x01", None)),
        ((1, 2, 3, 4, 7), ("text", None, 7, [], True, 1.5)),
        ((5, 6), (True, False, 1.0, "1", b"\x01", None, [], -1, 1 << 40)),
    ],
    ids=["version", "bytes", "places"],
)
async def test_another_type_of_a_part_is_refused(arena: Arena, places: Sequence[int], values: Sequence[object]) -> None:
    body = arena.sealed()
    made = [edited(body, place, value) for place in places for value in values]

    outcome = await arena.struck(*made)

    outcome.assert_forged("malformed", times=len(made))


@pytest.mark.attack(6)
@pytest.mark.parametrize(
    "tail",
    [
        b"\xcc\x01\x00\xc4\x00",
        b"\x01\xcc\x00\xc4\x00",
        b"\xcd\x00\x01\x00\xc4\x00",
        b"\xd0\x01\x00\xc4\x00",
        b"\x01\x00\xc5\x00\x00",
    ],
)
async def test_a_longer_encoding_of_a_number_is_refused(arena: Arena, tail: bytes) -> None:
    body = arena.sealed()
    assert body.endswith(b"\x01\x00\xc4\x00")

    outcome = await arena.struck(body[:-4] + tail)

    outcome.assert_forged("malformed")


@pytest.mark.attack(9)
@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 2_000 + b"\xc0",
        b"\x98\x01" + b"\x91" * 2_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x98\x01\xdd\xff\xff\xff\xff",
        b"\x98\x01\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff" + b"\x00" * 100,
        b"\x98\x01\xc6\x00\x00\x10\x00" + b"\x00" * 4_095,
    ],
)
async def test_what_claims_to_be_huge_or_deep_costs_nothing(arena: Arena, body: bytes) -> None:
    await arena.struck(b"\x00")

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_forged("malformed")
    assert cost.peak_bytes < FLAT_BYTES


@pytest.mark.attack(9)
@pytest.mark.parametrize("junk", [b"\x91" * 2_000 + b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"])
async def test_a_deep_or_huge_header_costs_nothing_although_signed(arena: Arena, junk: bytes) -> None:
    body = resign(arena.sealed(), arena.realm.signer("users"), header=junk)
    await arena.struck(b"\x00")

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_forged("malformed")
    assert cost.peak_bytes < FLAT_BYTES


@pytest.mark.attack(9)
@pytest.mark.parametrize(
    "junk",
    [b"\x91" * 2_000 + b"\xc0", b"\xdd\xff\xff\xff\xff", b"\x93\xc4\x10" + bytes(16) + b"\x00\xdd\xff\xff\xff\xff"],
)
async def test_a_deep_or_huge_key_block_is_buried_at_no_cost(arena: Arena, junk: bytes) -> None:
    body = resign(arena.sealed(), arena.realm.signer("users"), block=junk)
    await arena.struck(b"\x00")

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_buried()
    assert cost.peak_bytes < FLAT_BYTES


@pytest.mark.attack(12)
@pytest.mark.parametrize("opening", [b"", b"\x98\x01", b"\x98\x01\xc4\x05hello"])
async def test_a_body_over_the_cap_is_refused_before_it_is_parsed(arena: Arena, opening: bytes) -> None:
    body = opening + bytes(BODY_MAX + 1 - len(opening))
    await arena.struck(b"\x00")

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_forged("malformed")
    assert cost.peak_bytes < FLAT_BYTES
    assert len(outcome.quarantined[0]) == 64 * 1024


@pytest.mark.attack(12)
async def test_a_content_over_the_cap_of_its_kind_is_refused_although_signed(arena: Arena) -> None:
    body = resign(arena.sealed(), arena.realm.signer("users"), content=bytes(CONTENT_MAX + 1))

    outcome = await arena.struck(body)

    outcome.assert_forged("malformed")


@pytest.mark.attack(13)
@pytest.mark.parametrize("version", [0, 2, 127])
async def test_another_version_is_not_supported(arena: Arena, version: int) -> None:
    outcome = await arena.struck(edited(arena.sealed(), 0, version))

    outcome.assert_forged("unsupported")


@pytest.mark.attack(15)
@pytest.mark.parametrize("encode", [json.dumps, msgpack.packb])
@pytest.mark.parametrize("content", [{"note": "hello"}, [1, {"note": "hello"}], {"v": 1, "payload": {"note": "x"}}])
async def test_there_is_no_way_for_plaintext(
    arena: Arena, encode: Callable[[object], str | bytes], content: object
) -> None:
    made = encode(content)
    body = made.encode() if isinstance(made, str) else made
    before = arena.counts("orders")

    arena.publish(
        NAMES.commands,
        routing_key("orders.place_order", 1),
        body,
        type="orders.place_order/1",
        message_id=os.urandom(16).hex(),
        headers={"content-type": "application/json"},
    )
    await arena.settled()

    assert before == {}
    assert arena.counts("orders") == {"skipped.malformed": 1}
    assert arena.ran == []
    assert arena.bodies("orders", "quarantine") == [body]


@pytest.mark.attack(78)
@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdf\x00\x08\x8b\x80" + b"\xa1a\x00" * 560_000,
        b"\xdc\x00\x11" + b"\xc0" * 560_000,
        b"\x91" * 560_000,
    ],
)
async def test_a_header_bomb_is_refused_by_its_length(arena: Arena, bomb: bytes) -> None:
    parts = split_parts(arena.sealed())
    whole = join_parts(replace(parts, header=bomb))
    fitting = join_parts(replace(parts, header=bomb[:HEADER_MAX]))
    opener = arena.realm.opener("orders")

    def refuse(body: bytes) -> None:
        with pytest.raises(SealError):
            opener.verify(body, kinds=EVERY_KIND)

    await arena.struck(b"\x00")
    with measured() as cost:
        outcome = await arena.struck(whole, fitting)

    outcome.assert_forged("malformed", times=2)
    assert cost.peak_bytes < FLAT_BYTES
    assert fastest_s(lambda: refuse(whole)) < BOMB_MAX_S
    assert fastest_s(lambda: refuse(fitting)) < BOMB_MAX_S


@pytest.mark.attack(78)
async def test_a_recipient_of_4_mb_is_refused_by_its_length(arena: Arena) -> None:
    rows = [["a" * 4_000_000, bytes(8), bytes(80)]]
    bomb = bytes(msgpack.packb([bytes(16), arena.clock.now_ms, rows]))
    body = resign(arena.sealed(), arena.realm.signer("users"), block=bomb)
    await arena.struck(b"\x00")

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_forged("malformed")
    assert cost.peak_bytes < FLAT_BYTES
