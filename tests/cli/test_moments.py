from datetime import UTC, datetime, timedelta, timezone

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.moments import moment

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2027-01-31T09:00Z", datetime(2027, 1, 31, 9, 0, tzinfo=UTC)),
        ("2027-01-31T09:00+01:00", datetime(2027, 1, 31, 9, 0, tzinfo=timezone(timedelta(hours=1)))),
        ("+90m", NOW + timedelta(minutes=90)),
        ("+1.5h", NOW + timedelta(minutes=90)),
        ("+30", NOW + timedelta(seconds=30)),
    ],
)
def test_a_time_or_a_while_from_now(text: str | None, expected: datetime | None) -> None:
    assert moment(text, now=NOW) == expected


def test_a_while_counts_from_the_clock() -> None:
    found = moment("+1h")

    assert found is not None
    assert abs(found - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [("tomorrow", "is no time"), ("+soon", "soon"), ("2027-01-31T09:00", "has no time zone: write 2027-01-31T09:00Z")],
)
def test_what_is_no_time_is_told_what_would_be_one(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("+", r"\+")):
        moment(text)
