"""Finds dead letters by what the command line says: services, beginnings of ids, filters."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from messaging.cli.dead_select import target_of
from messaging.cli.exits import NothingMatchedError, UsageError
from messaging.core.dead_letter import DeadLetter, Selection
from messaging.operators import Operator
from messaging.runtime.oldest import Oldest

__all__ = ["Listed", "listed_letters", "one_letter", "services_and_selection"]


async def services_and_selection(
    acting: Operator, arguments: Sequence[str], selection: Selection
) -> tuple[tuple[str, ...], Selection]:
    """Return the services to look at and the whole selection; without a named one, those that have a queue."""
    target = target_of(arguments, acting.trust.current.services)
    services = target.services
    if not target.is_named:
        services = tuple([service for service in services if await _has_queue(acting, service)])
    return services, replace(selection, ids=target.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The oldest of what was found.

    Attributes:
        letters: The oldest ones, oldest first.
        total: How many there are.
    """

    letters: list[DeadLetter]
    total: int


async def listed_letters(
    acting: Operator, arguments: Sequence[str], selection: Selection, *, limit: int, replayable_only: bool = False
) -> Listed:
    """Return the oldest letters of what the arguments name, and how many there are; the others are not kept."""
    services, chosen = await services_and_selection(acting, arguments, selection)
    letters: list[DeadLetter] = []
    total = 0
    for service in services:
        oldest = Oldest[DeadLetter](limit, age_of=_died_at)
        async with aclosing(acting.dead_letters.each(service, chosen)) as found:
            async for letter in found:
                if letter.is_replayable or not replayable_only:
                    total += 1
                    oldest.offer(letter)
        letters += oldest.first_to_last()
    return Listed(letters=letters[:limit], total=total)


async def one_letter(acting: Operator, arguments: Sequence[str]) -> DeadLetter:
    """Return the one dead letter that the arguments name.

    Raises:
        NothingMatchedError: There is none.
        UsageError: No id is named, or several letters begin like it.
    """
    services, chosen = await services_and_selection(acting, arguments, Selection())
    if not chosen.ids:
        raise UsageError("name the dead letter by the id that `messaging dead list` shows")
    letters = [letter for service in services for letter in await acting.dead_letters.list(service, chosen, limit=4)]
    if not letters:
        raise NothingMatchedError(f"no dead letter {' '.join(arguments)}; `messaging dead list` shows what there is")
    if len(letters) > 1:
        first = ", ".join(letter.id for letter in letters[:3])
        raise UsageError(f"several dead letters begin like this ({first}…): write more digits of the id")
    return letters[0]


def _died_at(letter: DeadLetter) -> int:
    return letter.died_at_ms


async def _has_queue(acting: Operator, service: str) -> bool:
    return await acting.transport.depth(acting.names.queue(service, "dead")) is not None
