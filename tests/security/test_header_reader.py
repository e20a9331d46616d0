from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from messaging.core.envelope import Kind
from messaging.errors import SealError
from messaging.security import header_reader
from messaging.security.header import Address, Header, pack_header, parse_header
from messaging.security.header_reader import HeaderReader
from tests.support.measuring import measured
from tests.support.realm import NAMES, START_MS

SUITES: Final = frozenset({1})
FORMS: Final = {
    Kind.COMMAND: ("orders.place_order/1", "users", "orders", "messaging.commands", "orders.place_order.v1"),
    Kind.EVENT: ("orders.placed/2", "orders", "event:orders.placed", "messaging.events", "orders.placed.v2"),
    Kind.REQUEST: ("orders.get_order/1", "users", "orders", "messaging.requests", "orders.get_order.v1"),
    Kind.REPLY: (
        "orders.get_order/1", "orders", "users", "messaging.replies", "messaging.users.replies.00112233445566ff",
    ),
    Kind.FAULT: ("orders.place_order/1", "orders", "users", "messaging.dead", "dead.orders.users"),
    Kind.REPLAY: (
        "orders.place_order/1", "ops:al", "orders", "messaging.orders.return", "messaging.orders.commands",
    ),
}  # fmt: skip
BOUND: Final = {Kind.REPLY, Kind.FAULT, Kind.REPLAY}


def header_of(kind: Kind, **changes: Any) -> bytes:
    typ, sender, aud, exchange, rk = FORMS[kind]
    fields = {
        "mid": b"m" * 16,
        "iat": START_MS,
        "exp": START_MS + 1000,
        "corr": b"c" * 16,
        "bind": b"\x0b" * 32 if kind in BOUND else None,
        "rto": "messaging.users.replies.00112233445566ff" if kind is Kind.REQUEST else None,
        "salt": b"s" * 16,
        "cmt": b"t" * 32,
        "ext": {"bv": 1},
    }
    opening = Address(1, kind, typ, sender, b"k" * 8, aud, exchange, rk).pack()
    return pack_header(opening, **{**fields, **changes})


def reply_to(service: str, instance: str) -> bytes:
    queue = f"messaging.{service}.replies.{instance}"
    opening = Address(1, Kind.REPLY, "orders.get_order/1", "orders", b"k" * 8, service, "messaging.replies", queue)
    usual = header_of(Kind.REPLY)
    return opening.pack() + usual[usual.index(b"\xc4\x10mmmm") :]


def outcome(parse: Callable[[], Header]) -> object:
    try:
        return parse()
    except SealError as error:
        return type(error), str(error), error.disposition


def expected(raw: bytes) -> object:
    return outcome(lambda: parse_header(raw, names=NAMES, suites=SUITES))


@pytest.fixture
def reader() -> HeaderReader:
    reader = HeaderReader(NAMES, SUITES)
    for kind in FORMS:
        reader.parse(header_of(kind))
    return reader


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The headers that were not recognised."""
    seen: list[bytes] = []

    def parse(raw: bytes, **how: Any) -> Header:
        seen.append(raw)
        return parse_header(raw, **how)

    monkeypatch.setattr(header_reader, "parse_header", parse)
    return seen


@pytest.mark.parametrize("kind", FORMS)
def test_the_second_header_of_its_kind_is_recognised(reader: HeaderReader, slow: list[bytes], kind: Kind) -> None:
    second = header_of(kind, mid=b"n" * 16, iat=START_MS + 7, exp=START_MS + 8, corr=b"d" * 16, salt=b"u" * 16)

    found = reader.parse(second)

    assert found == expected(second)
    assert not slow


@pytest.mark.parametrize("kind", FORMS)
def test_every_changed_byte_means_what_it_means_without_a_memory(reader: HeaderReader, kind: Kind) -> None:
    raw = header_of(kind)

    for at in range(len(raw)):
        for byte in {0x00, 0x7F, 0x80, 0xC0, 0xC4, 0xFF, raw[at] ^ 1, raw[at] ^ 0x80}:
            changed = raw[:at] + bytes((byte,)) + raw[at + 1 :]
            assert outcome(partial(reader.parse, changed)) == expected(changed)


@pytest.mark.parametrize("kind", FORMS)
def test_every_cut_and_every_extra_byte_is_refused(reader: HeaderReader, kind: Kind) -> None:
    raw = header_of(kind)

    for other in (*(raw[:size] for size in range(len(raw))), raw + b"\x80"):
        assert outcome(partial(reader.parse, other)) == expected(other)
        assert not isinstance(expected(other), Header)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {"exp": START_MS},
        {"exp": START_MS + 31 * 86_400_000},
        {"iat": 5, "exp": 6},
        {"iat": (1 << 32) - 1, "exp": 1 << 32},
        {"corr": None},
        {"bind": b"x" * 32},
        {"bind": b"x" * 31},
        {"rto": "messaging.users.replies.0011223344556600"},
        {"rto": "messaging.users.replies.001122334455660x"},
        {"ext": {}},
        {"ext": {"bv": 2, "cause": b"c" * 16, "traceparent": "00-" + "a" * 52}},
        {"ext": {"bv": True}},
        {"ext": {"slot": 5, "bv": 1}},
        {"ext": {"bv": 1, "!x": 1}},
        {"ext": {"!x": 1, "bv": 1}},
        {"ext": [1]},
    ],
)
def test_it_says_of_every_header_what_the_parser_says(
    reader: HeaderReader, kind: Kind, changes: dict[str, Any]
) -> None:
    raw = header_of(kind, **changes)

    assert [outcome(lambda: reader.parse(raw)) for _ in range(3)] == [expected(raw)] * 3


def test_a_longer_encoding_of_extensions_is_no_second_form(reader: HeaderReader) -> None:
    raw = header_of(Kind.COMMAND).removesuffix(b"\x81\xa2bv\x01") + b"\x81\xa2bv\xcc\x01"

    assert outcome(lambda: reader.parse(raw)) == expected(raw)
    assert not isinstance(expected(raw), Header)


def test_two_openings_that_begin_alike_take_turns(reader: HeaderReader, slow: list[bytes]) -> None:
    first, second = reply_to("users", "00112233445566ff"), reply_to("users2", "00112233445566ff")

    found = [reader.parse(raw) for raw in (first, second, second, first)]

    assert first[:40] == second[:40]
    assert found == [expected(raw) for raw in (first, second, second, first)]
    assert slow == [second, first]


def test_requests_of_several_instances_are_recognised(reader: HeaderReader, slow: list[bytes]) -> None:
    others = [header_of(Kind.REQUEST, rto=f"messaging.users.replies.{number:016x}") for number in range(3)]

    found = [reader.parse(raw) for raw in others * 2]

    assert found == [expected(raw) for raw in others * 2]
    assert slow == others


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, slow: list[bytes]) -> None:
    for name in ("OPENINGS_MAX", "QUEUES_MAX", "EXTENSIONS_KEPT"):
        monkeypatch.setattr(header_reader, name, 2)
    reader = HeaderReader(NAMES, SUITES)
    headers = [
        *(header_of(kind, ext={"bv": number}) for kind in FORMS for number in range(5)),
        *(header_of(Kind.REQUEST, rto=f"messaging.users.replies.{number:016x}") for number in range(5)),
    ]

    found = [reader.parse(raw) for raw in headers * 2]

    assert found == [expected(raw) for raw in headers * 2]
    # Of each kind's first one nothing is known any more, nor of the queues but the last two.
    assert slow.count(headers[0]) == slow.count(headers[-5]) == 2


def test_made_up_reply_queues_of_made_up_types_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_reader, "QUEUES_MAX", 1_000)
    reader = HeaderReader(NAMES, SUITES)
    _, sender, aud, exchange, _ = FORMS[Kind.REQUEST]
    usual = header_of(Kind.REQUEST)
    middle = usual[usual.index(b"\xc4\x10mmmm") :]
    queue = b"00112233445566ff"

    def flood(types: range, queues: range) -> None:
        for number in types:
            typ, key = f"orders.get_order/{number}", f"orders.get_order.v{number}"
            opening = Address(1, Kind.REQUEST, typ, sender, b"k" * 8, aud, exchange, key).pack()
            for instance in queues:
                reader.parse(opening + middle.replace(queue, b"%016x" % instance))

    flood(range(1, 4), range(3))
    with measured() as cost:
        flood(range(100, 120), range(500))

    assert cost.peak_bytes < 1024 * 1024


def test_extensions_of_one_message_are_not_kept(reader: HeaderReader) -> None:
    short, long = header_of(Kind.EVENT, ext={"bv": 9}), header_of(Kind.EVENT, ext={"bv": 9, "cause": b"c" * 16})

    found = [[reader.parse(raw).ext for _ in range(2)] for raw in (short, long)]

    assert found[0][0] is found[0][1]
    assert found[1][0] is not found[1][1]
    assert found[1][0] == found[1][1] == {"bv": 9, "cause": b"c" * 16}
