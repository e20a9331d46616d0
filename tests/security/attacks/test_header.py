"""Headers that are not in their one form, although their sender signed them; and headers changed by somebody else."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import routing_key
from messaging.security.open import Opener
from messaging.security.outer import split_parts
from tests.support.arena import Arena, CancelOrder, GetOrder, OrderPlaced
from tests.support.realm import DAY_MS, NAMES, START_MS, SUBSCRIPTIONS, alter_header, resign

EXT: Final = 16
PARTS: Final = {
    Kind.COMMAND: ("orders", "commands"),
    Kind.REQUEST: ("orders", "requests"),
    Kind.EVENT: ("users", "events"),
}


def fields_of(header: bytes) -> list[Any]:
    found: list[Any] = msgpack.unpackb(header)
    return found


def with_raw_ext(header: bytes, ext: bytes) -> bytes:
    """Return a header whose extensions are these very bytes."""
    fields = fields_of(header)
    return b"\xdc\x00\x11" + b"".join(msgpack.packb(field) for field in fields[:EXT]) + ext


def signed_by_its_sender(arena: Arena, body: bytes, fields: Mapping[int, object]) -> bytes:
    """Return what a sender with a broken library would send: altered and honestly signed."""
    sender = fields_of(split_parts(body).header)[3]
    return resign(body, arena.realm.signer(sender), fields=fields)


@pytest.mark.attack(6)
@pytest.mark.parametrize("value", [True, 1.5, b"bytes of no use", "text of no use", [], {}, -1])
async def test_another_type_or_value_of_a_header_field_is_refused(arena: Arena, value: object) -> None:
    # Field 0 comes below, and the type of field 16 is that of one of these values.
    changed = [signed_by_its_sender(arena, arena.sealed(), {place: value}) for place in range(1, EXT)]

    outcome = await arena.struck(*changed)

    outcome.assert_forged("malformed", times=15)


@pytest.mark.attack(6)
async def test_no_value_where_there_must_be_one_is_refused(arena: Arena) -> None:
    # A command may lack a correlation, and must lack what it would answer and where to.
    changed = [
        signed_by_its_sender(arena, arena.sealed(), {place: None})
        for place in range(EXT + 1)
        if place not in {11, 12, 13}
    ]

    outcome = await arena.struck(*changed)

    outcome.assert_forged("malformed", times=14)


@pytest.mark.attack(6)
@pytest.mark.parametrize("value", [True, 1.0, "1", b"\x01", [1]])
async def test_another_type_of_the_suite_is_refused(arena: Arena, value: object) -> None:
    outcome = await arena.struck(signed_by_its_sender(arena, arena.sealed(), {0: value}))

    outcome.assert_forged("malformed")


@pytest.mark.attack(6)
@pytest.mark.parametrize("count", [0, 16, 18, 32])
async def test_another_number_of_header_fields_is_refused(arena: Arena, count: int) -> None:
    body = arena.sealed()
    fields = (fields_of(split_parts(body).header) * 2)[:count]

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), header=bytes(msgpack.packb(fields))))

    outcome.assert_forged("malformed")


@pytest.mark.attack(6)
async def test_a_longer_encoding_of_the_same_header_is_refused(arena: Arena) -> None:
    body = arena.sealed()
    header = split_parts(body).header
    assert header[:4] == b"\xdc\x00\x11\x01"

    outcome = await arena.struck(
        *(
            resign(body, arena.realm.signer("users"), header=longer)
            for longer in (
                b"\xdd\x00\x00\x00\x11" + header[3:],
                b"\xdc\x00\x11\xcc\x01" + header[4:],
                b"\xdc\x00\x11\xcd\x00\x01" + header[4:],
                b"\xdc\x00\x11\xd0\x01" + header[4:],
            )
        )
    )

    outcome.assert_forged("malformed", times=4)


@pytest.mark.attack(8)
@pytest.mark.parametrize(
    "ext",
    [
        b"\x82\xa2bv\x02\xa2bv\x02",
        b"\x82\xa2bv\x02\xa2bv\x63",
        b"\x82\xa2bv\x02\xa1a\x01",
        b"\x82\xc4\x02bv\x02\xa2bv\x02",
        b"\x82\xa2bv\x02\xd9\x02bv\x63",
    ],
)
async def test_a_repeated_or_unordered_extension_is_refused(arena: Arena, ext: bytes) -> None:
    body = arena.sealed()
    header = with_raw_ext(split_parts(body).header, ext)

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), header=header))

    outcome.assert_forged("malformed")


@pytest.mark.attack(10)
@pytest.mark.parametrize(
    "value", [b"\xd4\x01\x00", b"\xd6\xff\x00\x00\x00\x00", b"\xc7\x0c\xff" + bytes(12), b"\xc9\x00\x00\x00\x01\x05a"]
)
async def test_extension_types_and_timestamps_are_refused(arena: Arena, value: bytes) -> None:
    body = arena.sealed()
    header = split_parts(body).header
    fields = [msgpack.packb(field) for field in fields_of(header)]
    in_ext = with_raw_ext(header, b"\x81\xa2bv" + value)
    as_field = [b"\xdc\x00\x11" + b"".join([*fields[:at], value, *fields[at + 1 :]]) for at in range(17)]

    outcome = await arena.struck(
        *(resign(body, arena.realm.signer("users"), header=made) for made in (in_ext, *as_field))
    )

    outcome.assert_forged("malformed", times=18)


@pytest.mark.attack(10)
@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, "x" * 257, b"x" * 257, 1 << 63])
async def test_other_extension_values_are_refused_or_harmless(arena: Arena, value: object) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {EXT: {"bv": 2, "x": value}})

    outcome = await arena.struck(body)

    if value == 1 << 63:
        # A large number under a name of nobody's is well formed; the content was sealed to another header.
        outcome.assert_buried()
    else:
        outcome.assert_forged("malformed")


@pytest.mark.attack(11)
@pytest.mark.parametrize("place", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("junk", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xc0\xae", b"orders\x80"])
async def test_invalid_utf8_in_a_header_is_refused(arena: Arena, place: int, junk: bytes) -> None:
    body = arena.sealed()
    fields = [msgpack.packb(field) for field in fields_of(split_parts(body).header)]
    fields[place] = bytes((0xA0 | len(junk),)) + junk
    header = b"\xdc\x00\x11" + b"".join(fields)

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), header=header))

    outcome.assert_forged("malformed")


@pytest.mark.attack(11)
async def test_invalid_utf8_in_an_extension_is_refused(arena: Arena) -> None:
    body = arena.sealed()
    headers = [
        with_raw_ext(split_parts(body).header, ext) for ext in (b"\x81\xa1\xff\x01", b"\x82\xa2bv\x02\xa1x\xa1\xff")
    ]

    outcome = await arena.struck(*(resign(body, arena.realm.signer("users"), header=header) for header in headers))

    outcome.assert_forged("malformed", times=2)


@pytest.mark.attack(14)
@pytest.mark.parametrize("suite", [0, 2, 3, 99])
async def test_a_suite_that_is_not_allowed_is_not_supported(arena: Arena, suite: int) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {0: suite})

    outcome = await arena.struck(body)

    outcome.assert_forged("unsupported")


@pytest.mark.attack(14)
async def test_a_receiver_of_suite_2_alone_takes_no_suite_1(arena: Arena) -> None:
    engine = arena.services["orders"]._engine
    assert engine is not None
    engine._consumer._opener = Opener(
        arena.realm.keyrings["orders"],
        arena.realm.stores["orders"],
        NAMES,
        ambient=arena.clock.ambient,
        subscriptions=SUBSCRIPTIONS["orders"],
        suites=frozenset({2}),
    )

    outcome = await arena.struck(arena.sealed())

    outcome.assert_forged("unsupported")


@pytest.mark.attack(16)
@pytest.mark.parametrize("ext", [{"!x": 1, "bv": 2}, {"!approval": "yes"}, {"!": None}, {"!probe": b"x"}])
async def test_an_unknown_critical_extension_is_not_supported(arena: Arena, ext: dict[str, object]) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {EXT: ext})

    outcome = await arena.struck(body)

    outcome.assert_forged("unsupported")


@pytest.mark.attack(16)
async def test_a_critical_extension_under_a_bytes_key_does_not_slip_through(arena: Arena) -> None:
    body = arena.sealed()
    header = with_raw_ext(split_parts(body).header, b"\x82\xc4\x02!x\x01\xa2bv\x02")

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), header=header))

    outcome.assert_forged("malformed")


@pytest.mark.attack(16)
async def test_an_unknown_harmless_extension_is_accepted(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "messaging.security.header_writer._extensions", lambda envelope, version: {"bv": version, "x": "new"}
    )

    outcome = await arena.struck(arena.sealed())

    outcome.assert_ran()


def other_values(kind: Kind) -> list[dict[int, object]]:
    """Return, for each header field, another value that is well formed for the kind."""
    common: list[dict[int, object]] = [
        {2: "orders.cancel_order/1", 7: routing_key("orders.cancel_order", 1)},
        {2: "orders.place_order/2", 7: routing_key("orders.place_order", 2)},
        {8: uuid4().bytes},
        {9: START_MS - 1},
        {9: START_MS + 1},
        {10: START_MS + DAY_MS + 1},
        {10: START_MS + 3_600_000},
        {11: uuid4().bytes},
        {11: None},
        {14: bytes(16)},
        {15: bytes(32)},
        {16: {}},
        {16: {"bv": 1}},
        {16: {"bv": 2, "cause": bytes(16)}},
        {16: {"bv": 2, "x": 1}},
    ]
    own: dict[Kind, list[dict[int, object]]] = {
        Kind.COMMAND: [
            {1: 3, 6: NAMES.requests, 13: NAMES.reply_queue("users", "0" * 16)},
            {2: "users.rename/1", 5: "users", 7: routing_key("users.rename", 1)},
        ],
        Kind.REQUEST: [{1: 1, 6: NAMES.commands, 13: None}, {13: NAMES.reply_queue("users", "f" * 16)}],
        Kind.EVENT: [{2: "orders.order_lost/1", 5: "event:orders.order_lost", 7: routing_key("orders.order_lost", 1)}],
    }
    if kind is Kind.EVENT:
        common = [change for change in common if 2 not in change]
    return common + own[kind]


@pytest.mark.attack(29)
@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.REQUEST, Kind.EVENT])
async def test_no_header_field_can_be_set_to_another_valid_value(arena: Arena, kind: Kind) -> None:
    messages = {Kind.COMMAND: CancelOrder(), Kind.REQUEST: GetOrder(), Kind.EVENT: OrderPlaced()}
    body = arena.sealed(messages[kind])
    if kind is Kind.COMMAND:
        body = arena.sealed()
    header = split_parts(body).header
    service, part = PARTS[kind]
    altered = [alter_header(header, change) for change in other_values(kind)]

    outcome = await arena.struck(
        *(body.replace(header, made) if len(made) == len(header) else reheaded(body, made) for made in altered),
        service=service,
        part=part,
    )

    outcome.assert_forged("signature", times=len(altered))


@pytest.mark.attack(29)
@pytest.mark.parametrize("sender", ["billing", "orders", "ops:alice", "nobody"])
async def test_another_sender_is_no_owner_of_the_key(arena: Arena, sender: str) -> None:
    body = arena.sealed()
    header = alter_header(split_parts(body).header, {3: sender})

    outcome = await arena.struck(reheaded(body, header))

    outcome.assert_forged("unknown_key")


@pytest.mark.attack(29)
async def test_another_sender_with_its_own_key_did_not_sign(arena: Arena) -> None:
    body = arena.sealed()
    header = alter_header(split_parts(body).header, {3: "billing", 4: arena.realm.signer("billing").kid})

    outcome = await arena.struck(reheaded(body, header))

    outcome.assert_forged("signature")


def reheaded(body: bytes, header: bytes) -> bytes:
    """Return a message with another header under the old signature."""
    parts: list[object] = msgpack.unpackb(body)
    parts[1] = header
    return bytes(msgpack.packb(parts))


@pytest.mark.attack(77)
@pytest.mark.parametrize(
    "queue",
    [
        NAMES.queue("billing", "commands"),
        NAMES.reply_queue("billing", "0" * 16),
        NAMES.queue("users", "faults"),
        NAMES.reply_queue("users", "0" * 15),
        NAMES.reply_queue("users", "0" * 17),
        NAMES.reply_queue("users", "0" * 15 + "G"),
        NAMES.reply_queue("users", "\u0660" * 16),
        NAMES.reply_queue("users", "0" * 16) + "\n",
        "other.users.replies.0000000000000000",
        "#",
        "",
    ],
)
async def test_a_reply_queue_of_somebody_else_gets_nothing(arena: Arena, queue: str) -> None:
    body = signed_by_its_sender(arena, arena.sealed(GetOrder()), {13: queue})
    elsewhere = len(arena.bodies("billing", "commands"))

    outcome = await arena.struck(body, part="requests")

    outcome.assert_forged("malformed")
    assert arena.said("replies") == []
    assert len(arena.bodies("billing", "commands")) == elsewhere


@pytest.mark.attack(77)
@pytest.mark.parametrize(
    ("place", "value"),
    [(6, "amq.topic"), (6, ""), (6, "other.commands"), (7, "orders.place_order.v2"), (7, "#"), (5, "billing")],
)
async def test_an_address_that_contradicts_its_type_is_refused(arena: Arena, place: int, value: str) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {place: value})

    outcome = await arena.struck(body)

    outcome.assert_forged("malformed")


@pytest.mark.attack(22)
@pytest.mark.parametrize(
    "life_ms",
    [0, -1, -DAY_MS, 30 * DAY_MS + 1, 365 * DAY_MS],
    ids=["none", "negative", "long ago", "31 days", "a year"],
)
async def test_an_impossible_life_is_refused(arena: Arena, life_ms: int) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {10: START_MS + life_ms})

    outcome = await arena.struck(body)

    outcome.assert_forged("malformed")


@pytest.mark.attack(22)
async def test_a_life_beyond_the_bundles_limit_is_refused_and_kept(arena: Arena) -> None:
    body = signed_by_its_sender(arena, arena.sealed(), {10: START_MS + 7 * DAY_MS + 1})

    outcome = await arena.struck(body)

    outcome.assert_refused("stale", body)
