from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgpack
import pytest

from messaging.core.envelope import CODEC_JSON, Envelope, Kind
from messaging.core.schedule import HORIZON_S, Cancellation, Draft, due_ms
from messaging.errors import ConfigurationError, InvalidPayloadError

NOW_MS = 1_767_225_600_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC)


def an_envelope(kind: Kind = Kind.COMMAND) -> Envelope:
    first = Envelope.first(
        id=UUID(int=7),
        kind=kind,
        name="orders.place_order",
        version=2,
        sender="users",
        issued_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 60_000,
        payload=b'{"number":1}',
        codec=CODEC_JSON,
    )
    cause = Envelope.first(
        id=UUID(int=8),
        kind=Kind.EVENT,
        name="users.user_registered",
        version=1,
        sender="users",
        issued_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 1,
        payload=b"",
    )
    return first.caused_by(cause)


@pytest.mark.parametrize(
    ("deliver_at", "expected"),
    [
        (None, None),
        (NOW, None),
        (NOW - timedelta(days=400), None),
        (NOW + timedelta(milliseconds=1), NOW_MS + 1),
        (NOW + timedelta(seconds=5, microseconds=1), NOW_MS + 5001),
        ((NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-8))), NOW_MS + 3_600_000),
        (NOW + timedelta(seconds=HORIZON_S), NOW_MS + HORIZON_S * 1000),
    ],
)
def test_what_has_passed_is_now_and_what_comes_is_never_early(
    deliver_at: datetime | None, expected: int | None
) -> None:
    assert due_ms(deliver_at, now_ms=NOW_MS) == expected


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no time zone: say which, such as datetime.now\(UTC\)"):
        due_ms(datetime(2027, 1, 1), now_ms=NOW_MS)


def test_a_time_that_is_too_far_away_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more than ten years"):
        due_ms(NOW + timedelta(seconds=HORIZON_S + 1), now_ms=NOW_MS)


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.EVENT])
def test_a_draft_keeps_all_but_its_times(kind: Kind) -> None:
    envelope = an_envelope(kind)

    again = Draft.unpack(Draft(envelope=envelope).pack(), sender="users").issued(NOW_MS + 5_000)

    assert (again.issued_at_ms, again.expires_at_ms) == (NOW_MS + 5_000, NOW_MS + 65_000)
    kept = set(Envelope.__dataclass_fields__) - {"issued_at_ms", "expires_at_ms"}
    assert [getattr(again, name) for name in kept] == [getattr(envelope, name) for name in kept]


def test_a_draft_that_nothing_caused_keeps_that_too() -> None:
    envelope = an_envelope()
    alone = Envelope.first(
        **{
            name: getattr(envelope, name)
            for name in ("id", "kind", "name", "version", "sender", "issued_at_ms", "expires_at_ms", "payload")
        }
    )

    again = Draft.unpack(Draft(envelope=alone).pack(), sender="users").envelope

    assert (again.causation_id, again.correlation_id) == (None, alone.id)


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x90", b"\xc0", msgpack.packb([1] * 12), b"\x93\x01"])
def test_other_bytes_are_no_draft(packed: bytes) -> None:
    with pytest.raises(InvalidPayloadError, match="no scheduled message"):
        Draft.unpack(packed, sender="users")


def test_a_draft_of_a_newer_version_says_so() -> None:
    newer = msgpack.packb([2, *msgpack.unpackb(Draft(envelope=an_envelope()).pack())[1:]])

    with pytest.raises(InvalidPayloadError, match="layout 2, this version knows 1"):
        Draft.unpack(newer, sender="users")


def test_a_cancellation_compares_with_plain_words() -> None:
    assert Cancellation("sent") == "sent"
