"""`messaging schedules`: what waits for its time in a service's store; listed, and cancelled.

It goes to the store alone, with the service's own settings: neither the broker nor any key is asked, and payloads are
not shown. What waits at the broker, in delay levels, is sealed and cannot be listed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final
from uuid import UUID

import structlog
import typer

from messaging.cli.exits import Exit, UsageError
from messaging.cli.load import load_service
from messaging.cli.render import counted, line, print_json, shown_age, shown_time, table
from messaging.core.schedule import Cancellation
from messaging.service import Service
from messaging.stores.base import Schedule, Waiting

__all__ = ["app"]

log = structlog.get_logger()

app = typer.Typer(
    help="Messages that wait for their time: list, cancel.", no_args_is_help=True, rich_markup_mode="rich"
)

_LISTED: Final = 100

_Target = Annotated[
    str, typer.Argument(metavar="MODULE:SERVICE", help="Such as services.orders:orders.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    target: _Target,
    *,
    limit: Annotated[int, typer.Option(help="The next so many.", min=1)] = _LISTED,
    as_json: _Json = False,
) -> None:
    """List what waits, the next due first; what is due and could not be sealed says why.

    Exit codes: 0 listed, 1 the store does not answer, 2 the service has no store.

    Example: [bold]messaging schedules list services.orders:orders[/bold]
    """
    # One more than is shown tells whether there are more.
    found = asyncio.run(_waiting(load_service(target), limit + 1))
    rows = found[:limit]
    if as_json:
        print_json([_record(row) for row in rows])
    elif rows:
        now_s = time.time()
        table(
            "",
            ("DUE", "IN", "MESSAGE", "ID", "PROBLEM"),
            [
                (
                    shown_time(row.deliver_at_ms),
                    shown_age(row.deliver_at_ms / 1000 - now_s),
                    row.message_type,
                    row.message_id,
                    "" if row.problem is None else f"{counted(row.attempts, 'try')}: {row.problem}",
                )
                for row in rows
            ],
        )
    else:
        line("Nothing waits for its time.")
    if len(found) > limit:
        line("More are not shown: --limit N.", stderr=True)


@app.command()
def cancel(
    target: _Target,
    ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="As `list` shows them.", show_default=False)],
    *,
    as_json: _Json = False,
) -> None:
    """Take messages off the schedule for good, unless they are sent already.

    Exit codes: 0 all are cancelled, 1 some were sent before, 2 the service has no store, 5 some are not known.

    Example: [bold]messaging schedules cancel services.orders:orders 0198c2f4-6f6b-7c11-a9ab-3e1f0a52d0c7[/bold]
    """
    service = load_service(target)
    outcomes = asyncio.run(_cancelled(service, ids))
    for message_id, outcome in zip(ids, outcomes, strict=True):
        if outcome is Cancellation.CANCELLED:
            log.warning("schedule.cancelled", service=service.name, message_id=str(message_id))
    if as_json:
        print_json([{"id": message_id, "outcome": outcome} for message_id, outcome in zip(ids, outcomes, strict=True)])
    else:
        for message_id, outcome in zip(ids, outcomes, strict=True):
            line(f"{message_id} ", _WORDS[outcome])
    if Cancellation.SENT in outcomes:
        raise typer.Exit(Exit.FAILURE)
    if Cancellation.UNKNOWN in outcomes:
        raise typer.Exit(Exit.NOTHING_MATCHED)


_WORDS: Final = {
    Cancellation.CANCELLED: "cancelled",
    Cancellation.SENT: "was sent already",
    Cancellation.UNKNOWN: "is not known: never scheduled here, or ended more than seven days ago",
}


async def _waiting(service: Service, limit: int) -> Sequence[Waiting]:
    async with _schedule_of(service) as schedule:
        return await schedule.waiting(limit=limit)


async def _cancelled(service: Service, ids: Sequence[UUID]) -> list[Cancellation]:
    async with _schedule_of(service) as schedule:
        return [await schedule.cancel(message_id) for message_id in ids]


@asynccontextmanager
async def _schedule_of(service: Service) -> AsyncIterator[Schedule]:
    async with service.opened_store() as store:
        if store is None:
            raise UsageError(
                f"service {service.name!r} has no store, so nothing of it waits where it could be seen; what its "
                "senders delay is at the broker (docs/topology.md, Delay levels)"
            )
        yield store.schedule(service.name)


def _record(row: Waiting) -> dict[str, object]:
    return {
        "id": row.message_id,
        "type": row.message_type,
        "deliver_at": shown_time(row.deliver_at_ms),
        "deliver_at_ms": row.deliver_at_ms,
        "created_at_ms": row.created_at_ms,
        "attempts": row.attempts,
        "problem": row.problem,
    }
