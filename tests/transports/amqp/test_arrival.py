import datetime
import struct
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from messaging.transports.amqp.arrival import Arrival, Received, message_id_of

TEXT = st.none() | st.text(min_size=1, max_size=40)
NUMBER = st.none() | st.integers(min_value=1, max_value=2)
TIMES = st.none() | st.just(datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC))
TABLE = st.none() | st.dictionaries(
    st.text(min_size=1, max_size=9), st.integers(0, 9) | st.text(max_size=9), min_size=1
)


def arrival(header: bytes) -> Arrival:
    return Arrival(5, False, ("ex", "key"), header, b"body")


@given(
    properties=st.fixed_dictionaries(
        {
            "content_type": TEXT,
            "content_encoding": TEXT,
            "headers": TABLE,
            "delivery_mode": NUMBER,
            "priority": NUMBER,
            "correlation_id": TEXT,
            "reply_to": TEXT,
            "expiration": TEXT,
            "message_id": TEXT,
            "timestamp": TIMES,
            "message_type": TEXT,
            "user_id": TEXT,
            "app_id": TEXT,
        }
    )
)
def test_properties_are_read_as_pamqp_wrote_them(properties: dict[str, Any]) -> None:
    header = ContentHeader(body_size=4, properties=Basic.Properties(**properties)).marshal()

    message = arrival(header)

    assert message.message_id == properties["message_id"] == message_id_of(header)
    assert message.type == properties["message_type"]
    assert message.headers == (properties["headers"] or {})


@given(
    content_type=st.text(min_size=1, max_size=40),
    message_id=st.text(min_size=1, max_size=40),
    kind=st.text(min_size=1, max_size=40),
    data=st.data(),
)
def test_properties_of_our_own_publishers_are_read_as_pamqp_wrote_them(
    content_type: str, message_id: str, kind: str, data: st.DataObject
) -> None:
    properties = Basic.Properties(content_type=content_type, delivery_mode=2, message_id=message_id, message_type=kind)
    header = ContentHeader(body_size=4, properties=properties).marshal()
    cut = header[: data.draw(st.integers(14, len(header) - 1))]

    assert (arrival(header).message_id, arrival(header).type) == (message_id, kind)
    assert arrival(cut).message_id in {message_id, None}
    assert arrival(cut).type is None


def test_both_kinds_say_the_same() -> None:
    header = ContentHeader(
        body_size=4, properties=Basic.Properties(message_id="id", message_type="t/1", headers={"a": 1})
    )
    deliver = Basic.Deliver("tag", 5, True, "ex", "key")
    read = Received(DeliveredMessage(delivery=deliver, header=header, body=b"body", channel=None))  # type: ignore[arg-type]
    raw = Arrival(5, True, ("ex", "key"), header.marshal(), b"body")

    for name in ("body", "delivery_tag", "redelivered", "exchange", "routing_key", "message_id", "type", "headers"):
        assert getattr(raw, name) == getattr(read, name)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b"secret-id", b"\xff\xfe\xfd\xfc-id--"),
        lambda data: data[:-4],
        lambda data: data[:14],
        lambda data: data[:13] + bytes((data[13] | 1,)) + data[14:],
    ],
    ids=["invalid UTF-8", "cut", "cut early", "more flags"],
)
def test_id_that_cannot_be_read_is_not_there(spoil: Any) -> None:
    header = ContentHeader(body_size=4, properties=Basic.Properties(message_id="secret-id")).marshal()

    assert arrival(spoil(header)).message_id is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b"some-key", b"\xc3\xc3\xc3\xc3-key"),
        lambda data: data.replace(b"tS\x00\x00\x00\x05value", b"t?\x00\x00\x00\x05value"),
        lambda data: data[:20],
    ],
    ids=["invalid UTF-8", "unknown type", "cut"],
)
def test_headers_that_cannot_be_read_are_not_there(spoil: Any) -> None:
    properties = Basic.Properties(headers={"some-key": 1, "t": "value"})

    assert arrival(spoil(ContentHeader(body_size=4, properties=properties).marshal())).headers == {}


@given(header=st.binary(min_size=14, max_size=80))
def test_no_bytes_of_a_stranger_raise(header: bytes) -> None:
    message = arrival(header)

    assert message.message_id is None or isinstance(message.message_id, str)
    assert message.type is None or isinstance(message.type, str)
    assert isinstance(message.headers, dict)


@pytest.mark.parametrize("entry", [b"\x00V", b"\x01at\x01", b"\x00A\x00\x00\x00\x00"], ids=["void", "bool", "array"])
def test_table_that_would_take_too_long_is_not_read(entry: bytes) -> None:
    tables = [b"\x09x-attemptb\x03" + entry * (size // len(entry)) for size in (4_000, 9_000, 120_000)]

    found = [arrival(with_table(table)).headers.get("x-attempt") for table in tables]

    assert found == [3, None, None]


def with_table(table: bytes) -> bytes:
    return struct.pack(">HHQHI", 60, 0, 4, 1 << 13, len(table)) + table
