"""Which dead letters a command means: services and ids from the arguments, filters from the options."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from messaging.cli.exits import UsageError
from messaging.core.dead_letter import Selection

__all__ = [
    "ErrorFilter",
    "FingerprintFilter",
    "NameFilter",
    "OlderFilter",
    "Reason",
    "SenderFilter",
    "Target",
    "YoungerFilter",
    "age_s",
    "said_why",
    "selection_of",
    "target_of",
]

NameFilter = Annotated[
    str | None,
    typer.Option("--name", help="Only this message, such as orders.place_order.", show_default=False),
]
ErrorFilter = Annotated[
    str | None,
    typer.Option("--error", help="Only this error, as the list shows it, such as ValueError.", show_default=False),
]
FingerprintFilter = Annotated[
    str | None,
    typer.Option("--fingerprint", "--group", help="Only this group of `dead groups`.", show_default=False),
]
SenderFilter = Annotated[str | None, typer.Option("--sender", help="Only from this sender.", show_default=False)]
OlderFilter = Annotated[
    str | None,
    typer.Option(
        "--older-than", metavar="AGE", help="Only what died longer ago: 30s, 10m, 2h, 1d.", show_default=False
    ),
]
YoungerFilter = Annotated[
    str | None,
    typer.Option("--younger-than", metavar="AGE", help="Only what died since: 30s, 10m, 2h, 1d.", show_default=False),
]


def said_why(reason: str) -> str:
    """Return a reason that says something.

    Raises:
        BadParameter: it is blank.
    """
    if not reason.strip():
        raise typer.BadParameter("say why, in words that the next one who looks at the record understands")
    return reason


Reason = Annotated[
    str,
    typer.Option(
        "--reason", callback=said_why, help="Why, for the record of the service and the handler.", show_default=False
    ),
]

_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d)?", re.ASCII)
_UNIT_S: Final = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
# Four digits tell dead letters apart in most queues; fewer are a typing mistake more often than a choice.
_ID: Final = re.compile(r"[0-9a-f]{4,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the arguments name.

    Attributes:
        services: The services to look at.
        ids: Beginnings of ids; empty means all.
        is_named: Whether the user named services.
    """

    services: tuple[str, ...]
    ids: frozenset[str]
    is_named: bool


def target_of(arguments: Sequence[str], known: Sequence[str]) -> Target:
    """Return what the arguments name: services of the trust bundle, ids, or everything when there are none.

    Args:
        arguments: Services and beginnings of ids, in any order.
        known: The services of the trust bundle.

    Raises:
        UsageError: an argument is neither.
    """
    services = tuple(dict.fromkeys(argument for argument in arguments if argument in known))
    ids = frozenset(argument.lower() for argument in arguments if argument not in known)
    for text in ids:
        if _ID.fullmatch(text) is None:
            raise UsageError(
                f"{text!r} is neither a service of the trust bundle ({', '.join(known)}) nor an id: write at least the "
                "first 4 of the hex digits that `messaging dead list` shows"
            )
    return Target(services=services or tuple(known), ids=ids, is_named=bool(services))


def selection_of(  # one parameter per filter that the command line has
    *,
    ids: frozenset[str] = frozenset(),
    name: str | None,
    error: str | None,
    fingerprint: str | None,
    sender: str | None,
    older_than: str | None,
    younger_than: str | None,
) -> Selection:
    """Return the filters as a selection.

    Raises:
        UsageError: an age cannot be read.
    """
    return Selection(
        ids=ids,
        name=name,
        error=error,
        fingerprint=fingerprint,
        sender=sender,
        older_than_s=None if older_than is None else age_s(older_than),
        younger_than_s=None if younger_than is None else age_s(younger_than),
    )


def age_s(text: str) -> float:
    """Return an age such as `10m` in seconds.

    Raises:
        UsageError: it is none.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no age: write a number and a unit, such as 30s, 10m, 2h or 1d")
    return float(found[1]) * _UNIT_S[found[2]]
