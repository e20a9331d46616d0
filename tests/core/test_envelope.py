"""An envelope says who, when and why, and hands its correlation on."""

from uuid import UUID

import pytest

from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, CODEC_PROTOBUF, CODEC_RAW, Envelope, Kind, audience_of

FIRST = UUID(int=1)
SECOND = UUID(int=2)
THIRD = UUID(int=3)


def envelope(id: UUID = FIRST, kind: Kind = Kind.COMMAND) -> Envelope:
    return Envelope.first(
        id=id,
        kind=kind,
        name="orders.place_order",
        version=2,
        sender="users",
        issued_at_ms=1_000,
        expires_at_ms=2_000,
        payload=b"{}",
    )


def test_the_numbers_of_kinds_and_codecs_are_those_of_the_wire() -> None:
    assert {kind.word: kind.value for kind in Kind} == {
        "command": 1,
        "event": 2,
        "request": 3,
        "reply": 4,
        "fault": 5,
        "replay": 6,
    }
    assert (CODEC_MSGPACK, CODEC_JSON, CODEC_PROTOBUF, CODEC_RAW) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.COMMAND, "orders"),
        (Kind.REQUEST, "orders"),
        (Kind.EVENT, "event:orders.place_order"),
    ],
)
def test_a_message_is_for_its_owner_and_an_event_for_its_subscribers(kind: Kind, expected: str) -> None:
    assert audience_of(kind, "orders.place_order") == expected
    assert envelope(kind=kind).audience == expected


def test_the_first_message_starts_its_own_correlation() -> None:
    first = envelope()

    assert first.type == "orders.place_order/2"
    assert first.correlation_id == FIRST
    assert first.causation_id is None
    assert first.codec == CODEC_MSGPACK
    assert dict(first.headers) == {}


def test_a_chain_keeps_the_correlation_and_names_the_nearest_cause() -> None:
    first = envelope(FIRST)
    second = envelope(SECOND).caused_by(first)

    third = envelope(THIRD).caused_by(second)

    assert (third.id, third.correlation_id, third.causation_id) == (THIRD, FIRST, SECOND)
    assert (third.payload, third.issued_at_ms, third.sender) == (b"{}", 1_000, "users")


def test_a_cause_without_correlation_becomes_it() -> None:
    cause = Envelope(
        id=FIRST,
        kind=Kind.COMMAND,
        name="orders.place_order",
        version=1,
        sender="users",
        audience="orders",
        issued_at_ms=1,
        expires_at_ms=2,
        payload=b"",
    )

    assert envelope(SECOND).caused_by(cause).correlation_id == FIRST
