from typing import Any

import pamqp.commands
import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How, Settlement
from messaging.transports.amqp.wire import (
    BrokenFrameError,
    Encoder,
    read_body_size,
    read_confirm,
    read_content,
    read_deliver,
    read_method,
    read_names,
    whole_frame,
)

BASIC = pamqp.commands.Basic
CHANNELS = st.integers(min_value=1, max_value=2047)
TAGS = st.integers(min_value=1, max_value=2**63 - 1)
SHORT = st.text(max_size=60)
NAMES = st.text(alphabet="abcXYZ019-_.:", max_size=60)
LONG_AS_OURS = st.text(min_size=16, max_size=32).filter(lambda text: 32 in {len(text), len(text.encode())})
MILLISECONDS = st.none() | st.integers(min_value=-5, max_value=2**40)


@st.composite
def parcels(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> Parcel:
    route = Route(
        exchange=draw(NAMES),
        routing_key=draw(SHORT),
        mandatory=draw(st.booleans()),
        persistent=draw(st.booleans()),
        expiration_ms=draw(MILLISECONDS),
    )
    label = Label(
        # Ids of our own have 32 characters of one byte each; others may be as long, in characters or in bytes.
        message_id=draw(st.text(min_size=1, max_size=60) | st.uuids().map(lambda made: made.hex) | LONG_AS_OURS),
        type=draw(SHORT),
        attempt=draw(st.integers(min_value=1, max_value=1000)),
        first_failed_ms=draw(st.none() | st.integers(min_value=1, max_value=2**45)),
    )
    return Parcel(body=bytes(draw(sizes)), route=route, label=label, message_id=label.message_id)


def by_pamqp(channel: int, parcel: Parcel, frame_max: int) -> bytes:
    route, body = parcel.route, parcel.body
    publish = BASIC.Publish(exchange=route.exchange, routing_key=route.routing_key, mandatory=route.mandatory)
    size = frame_max - 8
    frames: list[Any] = [
        publish,
        ContentHeader(body_size=len(body), properties=parcel.properties),
        *(ContentBody(body[start : start + size]) for start in range(0, len(body), size)),
    ]
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


def by_hand(channel: int, parcel: Parcel, frame_max: int) -> bytes:
    encoder = Encoder(channel, frame_max=frame_max)
    first: list[bytes] = []
    again: list[bytes] = []
    encoder.publish(parcel, first)
    # The second time what was learnt of the destination is used.
    encoder.publish(parcel, again)
    assert b"".join(first) == b"".join(again)
    return b"".join(again)


@given(channel=CHANNELS, parcel=parcels(st.integers(min_value=0, max_value=300)))
def test_messages_are_written_as_pamqp_writes_them(channel: int, parcel: Parcel) -> None:
    assert by_hand(channel, parcel, 131_072) == by_pamqp(channel, parcel, 131_072)


@given(parcel=parcels(st.integers(min_value=0, max_value=20_000)))
def test_bodies_are_cut_as_pamqp_wants_them(parcel: Parcel) -> None:
    assert by_hand(1, parcel, 4096) == by_pamqp(1, parcel, 4096)


@given(channel=CHANNELS, tag=TAGS, covers=st.integers(min_value=1, max_value=3))
def test_settlements_are_written_as_pamqp_writes_them(channel: int, tag: int, covers: int) -> None:
    encoder = Encoder(channel, frame_max=131_072)

    assert encoder.settlement(Settlement(tag, How.ACK, covers)) == pamqp.frame.marshal(
        BASIC.Ack(delivery_tag=tag, multiple=covers > 1), channel
    )
    assert encoder.settlement(Settlement(tag, How.REJECT)) == pamqp.frame.marshal(
        BASIC.Reject(delivery_tag=tag, requeue=True), channel
    )
    assert encoder.settlement(Settlement(tag, How.GIVE_BACK)) == pamqp.frame.marshal(
        BASIC.Nack(delivery_tag=tag, multiple=False, requeue=True), channel
    )


@given(tag=TAGS, redelivered=st.booleans(), consumer=SHORT, exchange=NAMES, key=SHORT)
def test_deliveries_are_read_as_pamqp_wrote_them(
    tag: int, redelivered: bool, consumer: str, exchange: str, key: str
) -> None:
    data = pamqp.frame.marshal(BASIC.Deliver(consumer, tag, redelivered, exchange, key), 3)

    found_tag, found_mark, names = read_deliver(data, 7, len(data) - 1)

    assert read_method(data, 7) == BASIC.Deliver.index
    assert (found_tag, found_mark, read_names(names)) == (tag, redelivered, (exchange, key))


@given(tag=TAGS, multiple=st.booleans())
def test_confirms_are_read_as_pamqp_wrote_them(tag: int, multiple: bool) -> None:
    for method in (BASIC.Ack(tag, multiple), BASIC.Nack(tag, multiple, True)):
        assert read_confirm(pamqp.frame.marshal(method, 3), 7) == (tag, multiple)


@given(size=st.integers(min_value=0, max_value=2**62), message_id=SHORT)
def test_headers_are_read_as_pamqp_wrote_them(size: int, message_id: str) -> None:
    header = ContentHeader(body_size=size, properties=BASIC.Properties(message_id=message_id))
    data = pamqp.frame.marshal(header, 3)

    assert read_body_size(data, 7, len(data) - 1) == size


def test_frame_of_a_payload_is_the_frame_it_came_in() -> None:
    data = pamqp.frame.marshal(pamqp.commands.Channel.Close(404, "NOT_FOUND", 60, 40), 9)

    assert whole_frame(9, data[7:-1]) == data


@pytest.mark.parametrize(
    ("route", "label"),
    [
        (Route(exchange="ex", routing_key="k" * 256), Label(message_id="1", type="t")),
        (Route(exchange="ex", routing_key="ü" * 200), Label(message_id="1", type="t")),
        (Route(exchange="ex", routing_key="\ud800"), Label(message_id="1", type="t")),
        (Route(exchange="e x/\n", routing_key="k"), Label(message_id="1", type="t")),
        (Route(exchange="ex", routing_key="k"), Label(message_id="1" * 256, type="t")),
        (Route(exchange="ex", routing_key="k"), Label(message_id="1", type="t" * 256)),
    ],
    ids=["key", "key in UTF-8", "surrogate", "exchange", "id", "type"],
)
def test_what_has_no_form_is_refused_and_nothing_is_written(route: Route, label: Label) -> None:
    out: list[bytes] = []

    with pytest.raises((ValueError, TypeError)):
        Encoder(1, frame_max=4096).publish(
            Parcel(body=b"x", route=route, label=label, message_id=label.message_id), out
        )

    assert out == []


def test_many_destinations_are_forgotten_and_learnt_again() -> None:
    encoder = Encoder(1, frame_max=4096)

    for number in range(3000):
        label = Label(message_id="1", type=f"type-{number}")
        parcel = Parcel(body=b"x", route=Route(exchange="ex", routing_key=f"key-{number}"), label=label, message_id="1")
        out: list[bytes] = []
        encoder.publish(parcel, out)
        assert b"".join(out) == by_pamqp(1, parcel, 4096)


@pytest.mark.parametrize("names", [b"\x02ex\x05key", b"\x02ex\x01key"], ids=["too short", "too long"])
def test_names_that_do_not_fit_are_broken(names: bytes) -> None:
    with pytest.raises(BrokenFrameError):
        read_names(names)


def test_names_that_are_no_text_are_shown_as_question_marks() -> None:
    assert read_names(b"\x02ex\x04k\xff\xfey") == ("ex", "k??y")


@pytest.mark.parametrize("payload", [b"\x00\x0a\x00\x00" + bytes(10), b"\x00\x3c\x00\x00" + bytes(8)])
def test_header_of_no_message_is_broken(payload: bytes) -> None:
    with pytest.raises(BrokenFrameError):
        read_body_size(payload, 0, len(payload))


def content_of(body: bytes, *, channel: int = 7, pieces: int = 1) -> bytes:
    properties = BASIC.Properties(content_type="a/b", delivery_mode=2, message_id="some-id", message_type="t/1")
    size = max(1, -(-len(body) // pieces))
    frames: list[Any] = [ContentHeader(body_size=len(body), properties=properties)]
    frames += [ContentBody(body[start : start + size]) for start in range(0, len(body), size)]
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


@given(before=st.binary(max_size=20), body=st.binary(min_size=1, max_size=300), after=st.binary(max_size=20))
def test_content_in_two_frames_is_read_at_once(before: bytes, body: bytes, after: bytes) -> None:
    frames = content_of(body)

    content = read_content(before + frames + after, len(before), 7, 4096)

    assert content is not None
    header, read, end = content
    assert (header, read) == (frames[7 : len(frames) - len(body) - 9], body)
    assert end == len(before + frames)


@given(body=st.binary(min_size=1, max_size=60), data=st.data())
def test_content_that_is_cut_short_is_not(body: bytes, data: st.DataObject) -> None:
    frames = content_of(body)

    assert read_content(frames[: data.draw(st.integers(0, len(frames) - 1))], 0, 7, 4096) is None


BODY_AT = len(content_of(b"body")) - len(b"body") - 1


@pytest.mark.parametrize(
    ("frames", "frame_max"),
    [
        (content_of(b""), 4096),
        (content_of(b"body", channel=8), 4096),
        (content_of(b"body", pieces=2), 4096),
        (content_of(b"b" * 100), 107),
        (pamqp.frame.marshal(BASIC.Ack(1), 7) + content_of(b"body"), 4096),
        (content_of(b"body")[:-1] + b"\x00", 4096),
        (content_of(b"body")[: BODY_AT - 8] + b"\x00" + content_of(b"body")[BODY_AT - 7 :], 4096),
        (content_of(b"body")[:BODY_AT - 7] + b"\x02" + content_of(b"body")[BODY_AT - 6 :], 4096),
        (content_of(b"body")[:7] + b"\x00\x3d" + content_of(b"body")[9:], 4096),
        (pamqp.frame.marshal(ContentHeader(body_size=4), 8) + content_of(b"body")[-12:], 4096),
    ],
    ids=[
        "no body", "another channel", "two pieces", "beyond the largest frame", "a method", "body without its end",
        "header without its end", "two headers", "another class", "header of another channel",
    ],
)  # fmt: skip
def test_content_of_any_other_form_is_left_to_the_long_way(frames: bytes, frame_max: int) -> None:
    assert read_content(frames, 0, 7, frame_max) is None
