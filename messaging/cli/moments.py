"""A point in time from the command line: `2027-01-31T09:00+01:00`, or `+90m` for so long from now."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from messaging.cli.dead_select import age_s
from messaging.cli.exits import UsageError

__all__ = ["DeliverAt", "moment"]

DeliverAt = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME",
        help="Send it at this time, such as 2027-01-31T09:00+01:00, or +90m from now.",
        show_default=False,
    ),
]


def moment(text: str | None, *, now: datetime | None = None) -> datetime | None:
    """Return the time that was meant; None when none was given.

    Args:
        text: ISO 8601 with a time zone, or `+` and a duration.
        now: What a duration counts from; default: the clock.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if text.startswith("+"):
        return (now or datetime.now(UTC)) + timedelta(seconds=age_s(text[1:]))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write 2027-01-31T09:00+01:00, or +90m for so long from now") from None
    if found.utcoffset() is None:
        raise UsageError(f"{text!r} has no time zone: write {text}Z for UTC, or {text}+01:00")
    return found
