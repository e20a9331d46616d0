"""Whichever way a header is written, its bytes are the ones that msgpack writes, field by field."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from messaging.core.envelope import Envelope, Kind
from messaging.errors import ConfigurationError
from messaging.security.header import EXTENSION_VALUE_MAX, Address
from messaging.security.header_writer import write_header
from messaging.security.packed import pack

ID, OTHER, CAUSE = UUID(int=1 << 100), UUID(int=2 << 100), UUID(int=3 << 100)
SALT, COMMITMENT, LEAF = b"s" * 16, b"c" * 32, b"l" * 32
NOW_MS = 1_800_000_000_000
ADDRESS = Address(1, Kind.COMMAND, "orders.place/1", "shop", b"k" * 8, "orders", "m.commands", "orders.place.v1")
FIELDS = [1, 1, "orders.place/1", "shop", b"k" * 8, "orders", "m.commands", "orders.place.v1"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def envelope(**changes: Any) -> Envelope:
    first = Envelope.first(
        id=ID,
        kind=Kind.COMMAND,
        name="orders.place",
        version=1,
        sender="shop",
        issued_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 60_000,
        payload=b"",
    )
    return replace(first, **changes)


def written(one: Envelope) -> bytes:
    return write_header(one, ADDRESS.pack(), one.id.bytes, SALT, COMMITMENT, 7)


def expected(one: Envelope, extensions: dict[str, Any]) -> bytes:
    corr = None if one.correlation_id is None else one.correlation_id.bytes
    times = [one.issued_at_ms, one.expires_at_ms]
    fields = [*FIELDS, one.id.bytes, *times, corr, one.bind, one.reply_to, SALT, COMMITMENT, extensions]
    return pack(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"correlation_id": OTHER},
        {"correlation_id": None},
        {"bind": LEAF},
        {"reply_to": "m.shop.replies.0123456789abcdef"},
        {"issued_at_ms": 5, "expires_at_ms": NOW_MS},
        {"issued_at_ms": (1 << 32) - 1},
        {"issued_at_ms": 1 << 32},
    ],
    ids=["usual", "correlated", "uncorrelated", "bound", "asking", "long ago", "last short time", "first long time"],
)
def test_fields_are_written_as_msgpack_writes_them(changes: dict[str, Any]) -> None:
    one = envelope(**changes)

    assert written(one) == expected(one, {"bv": 7})


@pytest.mark.parametrize(
    ("changes", "extensions"),
    [
        ({"bundle_version": 3}, {"bv": 3}),
        ({"bundle_version": 0}, {"bv": 0}),
        ({"causation_id": CAUSE}, {"bv": 7, "cause": CAUSE.bytes}),
        ({"slot": 0}, {"bv": 7, "slot": 0}),
        ({"traceparent": TRACE}, {"bv": 7, "traceparent": TRACE}),
        (
            {"traceparent": TRACE, "slot": 9, "causation_id": CAUSE},
            {"bv": 7, "cause": CAUSE.bytes, "slot": 9, "traceparent": TRACE},
        ),
    ],
    ids=["another bundle", "no bundle", "caused", "slot", "traced", "all"],
)
def test_extensions_are_there_in_ascending_order(changes: dict[str, Any], extensions: dict[str, Any]) -> None:
    one = envelope(**changes)

    assert written(one) == expected(one, extensions)


def test_a_trace_context_beyond_its_limit_is_refused() -> None:
    assert written(envelope(traceparent="t" * EXTENSION_VALUE_MAX))

    with pytest.raises(ConfigurationError, match="traceparent"):
        written(envelope(traceparent="t" * (EXTENSION_VALUE_MAX + 1)))
