"""`messaging store`: the tables of a service's durable store; which version they have, and the way to the newest.

It goes to the store alone, with the service's own settings: neither the broker nor any key is asked.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.load import load_service
from messaging.cli.render import line, print_json, text
from messaging.service import Service

__all__ = ["app"]

app = typer.Typer(
    help="The tables of a durable store: bring them up to date.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.callback()
def root() -> None:
    """Keep the verb's name: a group of one would swallow it."""


@app.command("migrate")
def migrate_(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:SERVICE", help="Such as services.orders:orders.", show_default=False)
    ],
    *,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Run the migration and roll it back; say what is missing.")
    ] = False,
    as_sql: Annotated[bool, typer.Option("--sql", help="As --dry-run, and print the statements.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Bring the library's tables to the newest version; what is there already stays.

    Several may do so at once: one makes the change, the others wait and find it made.

    Exit codes: 0 they are, or could be, up to date; 1 the database does not answer or refuses; 2 the service has no
    such store, or a newer release has migrated it.

    Example: [bold]messaging store migrate services.orders:orders --sql[/bold]
    """
    service = load_service(target)
    outcome = asyncio.run(_migrated(service, changes=not (is_dry or as_sql)))
    if as_json:
        print_json(_record(service, outcome))
        return
    if as_sql:
        for statement in outcome.statements or ():
            line(f"{statement};")
    # Beside the statements, where those have the output for themselves.
    _tell(service, outcome, aside=as_sql)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    # Where the tables stood, and what brings them to the newest version; statements only of a rehearsal.
    where: str
    current: str | None
    newest: str
    steps: Sequence[tuple[str, str]]
    statements: Sequence[str] | None = None


def _tell(service: Service, outcome: _Outcome, *, aside: bool) -> None:
    known = "no version is recorded" if outcome.current is None else f"version {outcome.current}"
    line(f"{service.name}: {outcome.where}: {known}, the newest is {outcome.newest}", stderr=aside)
    for version, title in outcome.steps:
        line(f"  {version}  {title}", stderr=aside)
    if not outcome.steps:
        line("nothing to do", stderr=aside)
    elif outcome.statements is None:
        line(text(f"migrated to {outcome.newest}", "green"), stderr=aside)
    else:
        line("nothing was changed: run it without --dry-run and --sql", stderr=aside)


def _record(service: Service, outcome: _Outcome) -> dict[str, object]:
    return {
        "service": service.name,
        "database": outcome.where,
        "before": outcome.current,
        "newest": outcome.newest,
        "steps": [{"version": version, "title": title} for version, title in outcome.steps],
        "migrated": outcome.statements is None,
        **({} if outcome.statements is None else {"sql": outcome.statements}),
    }


async def _migrated(service: Service, *, changes: bool) -> _Outcome:
    async with service.opened_store() as store:
        if store is None:
            raise UsageError(_NO_TABLES.format(service.name))
        # Of the extra `sql`, which a service with such a store has, and slow to import.
        from messaging.stores.sql import SqlStore, migrations  # noqa: PLC0415

        if not isinstance(store, SqlStore):
            raise UsageError(_NO_TABLES.format(service.name))
        before = await migrations.standing(store.engine)
        statements = None
        if changes:
            await migrations.migrate(store.engine)
        else:
            statements = await migrations.rehearse(store.engine)
        return _Outcome(
            where=store.engine.url.render_as_string(hide_password=True),
            current=before.current,
            newest=before.newest,
            steps=[(step.version, step.title) for step in before.pending],
            statements=statements,
        )


_NO_TABLES = "service {!r} has no durable store, so there are no tables: Service(…, store=SqlStore(engine))"
