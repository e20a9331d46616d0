"""Finds dead letters by what the command line says: services, beginnings of ids, filters."""

from collections.abc import Sequence
from dataclasses import replace

from messaging.assembly import Operator
from messaging.cli.dead_select import target_of
from messaging.cli.exits import NothingMatchedError, UsageError
from messaging.core.dead_letter import DeadLetter, Selection

__all__ = ["one_letter", "services_and_selection"]


async def services_and_selection(
    acting: Operator, arguments: Sequence[str], selection: Selection
) -> tuple[tuple[str, ...], Selection]:
    """Return the services to look at and the whole selection; without a named one, those that have a queue."""
    target = target_of(arguments, acting.trust.current.services)
    services = target.services
    if not target.is_named:
        services = tuple([service for service in services if await _has_queue(acting, service)])
    return services, replace(selection, ids=target.ids)


async def one_letter(acting: Operator, arguments: Sequence[str]) -> DeadLetter:
    """Return the one dead letter that the arguments name.

    Raises:
        NothingMatchedError: There is none.
        UsageError: No id is named, or several letters begin like it.
    """
    services, chosen = await services_and_selection(acting, arguments, Selection())
    if not chosen.ids:
        raise UsageError("name the dead letter by the id that `messaging dead list` shows")
    letters = [letter for service in services for letter in await acting.dead_letters.list(service, chosen)]
    if not letters:
        raise NothingMatchedError(f"no dead letter {' '.join(arguments)}; `messaging dead list` shows what there is")
    if len(letters) > 1:
        first = ", ".join(letter.id for letter in letters[:3])
        raise UsageError(f"{len(letters)} dead letters begin like this ({first}…): write more digits of the id")
    return letters[0]


async def _has_queue(acting: Operator, service: str) -> bool:
    return await acting.transport.depth(acting.names.queue(service, "dead")) is not None
