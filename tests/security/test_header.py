from typing import Any, Final

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.errors import MalformedError, UnsupportedError
from messaging.security.header import Address, Header, check_extensions, pack_header, parse_header
from tests.support.realm import NAMES, START_MS, alter_header

SUITE, KIND, TYP, SENDER, SKID, AUD, EX, RK, MID, IAT, EXP, CORR, BIND, RTO, SALT, CMT, EXT = range(17)

REPLY_QUEUE: Final = "messaging.users.replies.00112233445566ff"
LEAF: Final = b"\x0b" * 32
ADDRESSES: Final = {
    "command": (Kind.COMMAND, "orders.place_order/1", "users", "orders", "commands", "orders.place_order.v1"),
    "event": (Kind.EVENT, "orders.placed/2", "orders", "event:orders.placed", "events", "orders.placed.v2"),
    "operator's event": (Kind.EVENT, "orders.placed/2", "ops:al", "event:orders.placed", "events", "orders.placed.v2"),
    "request": (Kind.REQUEST, "orders.get_order/1", "users", "orders", "requests", "orders.get_order.v1"),
    "reply": (Kind.REPLY, "orders.get_order/1", "orders", "users", "replies", REPLY_QUEUE),
    "operator's reply": (
        Kind.REPLY, "orders.get_order/1", "orders", "ops:al", "replies", "messaging.ops:al.replies.00112233445566ff",
    ),
    "fault to the origin": (Kind.FAULT, "orders.place_order/1", "orders", "users", "dead", "dead.orders.users"),
    "fault of an event": (Kind.FAULT, "orders.placed/2", "users", "users", "dead", "dead.users"),
    "fault of its own": (Kind.FAULT, "orders.place_order/1", "orders", "orders", "dead", "dead.orders.orders"),
    "replay of a command": (
        Kind.REPLAY, "orders.place_order/1", "ops:al", "orders", "orders.return", "messaging.orders.commands",
    ),
    "replay of an event": (Kind.REPLAY, "orders.placed/2", "ops:al", "users", "users.return", "messaging.users.events"),
}  # fmt: skip


ODD_TYPES: Final[tuple[object, ...]] = (True, 1.5, [], msgpack.ExtType(1, b"x"))


def header_of(form: str = "command", *, ext: dict[str, Any] | None = None) -> bytes:
    kind, typ, sender, aud, exchange, rk = ADDRESSES[form]
    bound = kind in {Kind.REPLY, Kind.FAULT, Kind.REPLAY}
    return pack_header(
        Address(1, kind, typ, sender, b"k" * 8, aud, f"messaging.{exchange}", rk).pack(),
        mid=b"m" * 16,
        iat=START_MS,
        exp=START_MS + 1000,
        corr=b"c" * 16,
        bind=LEAF if bound else None,
        rto="messaging.users.replies.00112233445566ff" if kind is Kind.REQUEST else None,
        salt=b"s" * 16,
        cmt=b"t" * 32,
        ext={"bv": 1} if ext is None else ext,
    )


def parsed(raw: bytes, suites: frozenset[int] = frozenset({1})) -> Header:
    return parse_header(raw, names=NAMES, suites=suites)


@pytest.mark.parametrize("form", ADDRESSES)
def test_each_kind_has_its_form(form: str) -> None:
    kind, typ, sender, aud, exchange, rk = ADDRESSES[form]

    found = parsed(header_of(form))

    assert found.address == Address(1, kind, typ, sender, b"k" * 8, aud, f"messaging.{exchange}", rk)
    assert f"{found.name}/{found.version}" == typ
    assert (found.iat, found.exp, found.mid, found.salt, found.cmt) == (
        START_MS, START_MS + 1000, b"m" * 16, b"s" * 16, b"t" * 32,
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x90",
        b"\x81\x01\x02",
        msgpack.packb(list(range(16))),
        msgpack.packb(list(range(17))),
        header_of() + b"\x00",
        header_of()[:-1],
        b"\xdd\x00\x00\x00\x11" + header_of()[3:],
    ],
)
def test_what_is_no_header_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parsed(raw)


@pytest.mark.parametrize(
    ("form", "at", "value"),
    [
        *(("command", at, value) for at in range(17) for value in ODD_TYPES),
        *(("command", at, b"x") for at in (SUITE, KIND, TYP, SENDER, AUD, EX, RK, IAT, EXP, EXT, SKID, MID, SALT, CMT)),
        *(("command", at, "x") for at in (SKID, MID, CORR, BIND, SALT, CMT, RTO)),
        *(("command", KIND, kind) for kind in (0, 7, -1, 2**40)),
        *(("command", TYP, typ) for typ in ("", "orders", "orders.x", "orders.x/0", "orders.x/01", "orders.x/1\n")),
        *(
            ("command", TYP, typ)
            for typ in ("orders.x/\u0663", "Orders.x/1", "\u043erders.x/1", "orders.x/100000", "ops.x/1")
        ),
        ("command", TYP, "orders." + "x" * 120 + "/1"),
        *(("command", SENDER, name) for name in ("", "Users", "users\n", "amq.x", "event", "ops:", "ops", "a" * 33)),
        ("command", AUD, "users"),
        ("command", AUD, "event:orders.place_order"),
        ("command", EX, "messaging.events"),
        ("command", EX, "other.commands"),
        ("command", EX, "messaging.commands" + "x" * 250),
        ("command", RK, "orders.place_order.v2"),
        ("command", RK, "x" * 256),
        ("command", MID, b"m" * 15),
        ("command", SKID, b"k" * 9),
        ("command", SALT, b"s" * 17),
        ("command", CMT, b"t" * 31),
        ("command", CORR, b"c" * 8),
        ("command", BIND, LEAF),
        ("command", RTO, "messaging.users.replies.00112233445566ff"),
        ("command", IAT, -1),
        ("command", EXP, START_MS),
        ("command", EXP, START_MS - 1),
        ("command", EXP, START_MS + 30 * 24 * 3_600_000 + 1),
        ("event", SENDER, "users"),
        ("event", AUD, "orders"),
        ("event", AUD, "event:orders.other"),
        ("event", RK, "orders.placed.v1"),
        ("request", RTO, None),
        ("request", RTO, "messaging.billing.replies.00112233445566ff"),
        ("request", RTO, "messaging.orders.commands"),
        ("request", RTO, "messaging.users.replies.00112233445566FF"),
        ("request", RTO, "messaging.users.replies.00112233445566ff\n"),
        ("request", RTO, "messaging.users.replies.\u0660\u0660112233445566ff"),
        ("request", RTO, "messaging.users.replies.0011"),
        ("reply", CORR, None),
        ("reply", BIND, None),
        ("reply", BIND, LEAF[:31]),
        ("reply", SENDER, "billing"),
        ("reply", AUD, "event:x.y"),
        ("reply", RK, "messaging.orders.replies.00112233445566ff"),
        ("reply", RK, "messaging.users.commands"),
        ("fault to the origin", BIND, None),
        ("fault to the origin", SENDER, "ops:al"),
        ("fault to the origin", SENDER, "billing"),
        ("fault to the origin", AUD, "billing"),
        ("fault to the origin", RK, "dead.orders"),
        ("fault to the origin", RK, "dead.orders.#"),
        ("fault of an event", AUD, "orders"),
        ("fault of an event", RK, "dead.users.orders"),
        ("replay of a command", BIND, None),
        ("replay of a command", AUD, "users"),
        ("replay of a command", AUD, "ops:al"),
        ("replay of a command", RK, "messaging.orders.dead"),
        ("replay of an event", RK, "messaging.users.commands"),
        ("replay of an event", EX, "messaging.orders.return"),
    ],
)
def test_one_field_out_of_form_is_malformed(form: str, at: int, value: object) -> None:
    with pytest.raises(MalformedError):
        parsed(alter_header(header_of(form), {at: value}))


def test_a_replay_names_a_service_whose_queue_it_is_for() -> None:
    raw = alter_header(
        header_of("replay of an event"),
        {AUD: "ops:al", EX: "messaging.ops:al.return", RK: "messaging.ops:al.events"},
    )

    with pytest.raises(MalformedError):
        parsed(raw)


def test_a_command_of_another_service_is_replayed_nowhere_else() -> None:
    raw = alter_header(
        header_of("replay of a command"), {AUD: "users", EX: "messaging.users.return", RK: "messaging.users.commands"}
    )

    with pytest.raises(MalformedError):
        parsed(raw)


@pytest.mark.parametrize(
    "ext",
    [
        {"b": 1, "a": 1},
        {"": 1},
        {"k" * 33: 1},
        {"k": "v" * 257},
        {"k": b"v" * 257},
        {"k": 1.5},
        {"k": [1]},
        {"k": {}},
        {b"k": 1},
        {str(at).zfill(2): at for at in range(17)},
        {"traceparent": b"x"},
        {"tracestate": 1},
        {"cause": b"x" * 15},
        {"cause": "x" * 16},
        {"bv": -1},
        {"bv": True},
        {"slot": -1},
        {"slot": 4_096},
        {"slot": "1"},
        {"slot": False},
    ],
)
def test_extensions_out_of_form_are_malformed(ext: dict[Any, Any]) -> None:
    with pytest.raises(MalformedError):
        parsed(alter_header(header_of(), {EXT: ext}))
    with pytest.raises(MalformedError):
        check_extensions(ext)


def test_a_repeated_extension_is_malformed() -> None:
    twice = header_of(ext={"aa": 1, "ab": 1}).replace(b"ab", b"aa")

    with pytest.raises(MalformedError):
        parsed(twice)


def test_an_extension_longer_in_bytes_than_in_letters_is_measured_in_bytes() -> None:
    with pytest.raises(MalformedError):
        check_extensions({"k": "é" * 129})


def test_known_and_unknown_extensions_are_read() -> None:
    ext = {
        "bv": 3,
        "cause": b"c" * 16,
        "flag": True,
        "nil": None,
        "size": -5,
        "slot": 4_095,
        "traceparent": "00-ab",
        "tracestate": "x",
    }

    assert parsed(header_of(ext=ext)).ext == ext


def test_an_unknown_critical_extension_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="critical"):
        parsed(header_of(ext={"!x": 1, "bv": 1}))


def test_a_critical_extension_cannot_hide_behind_another_type() -> None:
    with pytest.raises(MalformedError):
        parsed(alter_header(header_of(), {EXT: {b"!x": 1}}))


@pytest.mark.parametrize(("suite", "allowed"), [(0, {1}), (99, {1}), (2, {1}), (1, {2}), (-1, {1})])
def test_a_suite_that_is_not_allowed_is_unsupported(suite: int, allowed: set[int]) -> None:
    with pytest.raises(UnsupportedError, match="suite"):
        parsed(alter_header(header_of(), {SUITE: suite}), frozenset(allowed))


def test_a_number_in_a_longer_form_is_malformed() -> None:
    raw = header_of()
    longer = raw[:3] + b"\xcc\x01" + raw[4:]

    with pytest.raises(MalformedError, match="canonical"):
        parsed(longer)
