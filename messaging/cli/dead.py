"""`messaging dead`: what failed for good, read with an operator's key; replayed or discarded on purpose.

`list` and `groups` only look. `replay` and `discard` say first what they would do and ask, unless `--yes`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.cli.dead_edit import edit
from messaging.cli.dead_export import export_letters, opened_for
from messaging.cli.dead_find import listed_letters, one_letter, services_and_selection
from messaging.cli.dead_pass import ReplayOrder, discard_all, replay_all
from messaging.cli.dead_select import (
    ErrorFilter,
    FingerprintFilter,
    NameFilter,
    OlderFilter,
    Reason,
    SenderFilter,
    YoungerFilter,
    selection_of,
)
from messaging.cli.dead_show import (
    SHORT_ID,
    group_record,
    letter_record,
    show_groups,
    show_letter,
    show_letters,
)
from messaging.cli.exits import Exit, UsageError
from messaging.cli.operators import Actor, AsOperator, act_as, actor_of
from messaging.cli.render import counted, line, print_json
from messaging.core.dead_letter import Group, Selection
from messaging.operators import Operator

__all__ = ["app"]

app = typer.Typer(
    help="Dead letters: what failed for good. Look, replay, discard.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_CONFIRM_SHOWN: Final = 10
_LISTED: Final = 1_000

_Services = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SERVICE]...", help="Only these services; default: all of the trust bundle.", show_default=False
    ),
]
_Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE|ID]...", help="Services, or ids (their beginning is enough).", show_default=False),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    services: _Services = None,
    *,
    name: NameFilter = None,
    error: ErrorFilter = None,
    fingerprint: FingerprintFilter = None,
    sender: SenderFilter = None,
    older_than: OlderFilter = None,
    younger_than: YoungerFilter = None,
    limit: Annotated[int, typer.Option(help="The oldest so many.", min=1)] = _LISTED,
    operator: AsOperator = None,
    as_json: _Json = False,
) -> None:
    """List dead letters, oldest first, with the decrypted reason.

    Example: [bold]messaging dead list orders --older-than 10m[/bold]
    """
    selection = selection_of(
        name=name, error=error, fingerprint=fingerprint, sender=sender, older_than=older_than, younger_than=younger_than
    )
    listed = act_as(actor_of(operator), lambda acting: listed_letters(acting, services or [], selection, limit=limit))
    letters = listed.letters
    if as_json:
        print_json([letter_record(letter) for letter in letters])
    elif letters:
        show_letters(letters)
        line(f"{counted(listed.total, 'dead letter')}; one in full: messaging dead show ", letters[0].id[:SHORT_ID])
    if listed.total > len(letters):
        line(
            f"{counted(listed.total - len(letters), 'younger one')} not shown: --limit N shows more, "
            "`messaging dead groups` what they have in common, `messaging dead export` writes all",
            stderr=True,
        )
    if letters or as_json:
        return
    line("No dead letters.")


@app.command()
def export(
    services: _Services = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; default: stdout.", show_default=False)
    ] = None,
    name: NameFilter = None,
    error: ErrorFilter = None,
    fingerprint: FingerprintFilter = None,
    sender: SenderFilter = None,
    older_than: OlderFilter = None,
    younger_than: YoungerFilter = None,
    operator: AsOperator = None,
) -> None:
    """Write dead letters with their decrypted payloads as lines of JSON, however many there are.

    Example: [bold]messaging dead export orders -o dead.jsonl[/bold]
    """
    selection = selection_of(
        name=name, error=error, fingerprint=fingerprint, sender=sender, older_than=older_than, younger_than=younger_than
    )
    with opened_for(output) as file:
        count = act_as(actor_of(operator), lambda acting: export_letters(acting, services or [], selection, file))
    if output is not None:
        line(f"{counted(count, 'dead letter')} in {output}")


@app.command()
def groups(
    services: _Services = None,
    *,
    name: NameFilter = None,
    error: ErrorFilter = None,
    sender: SenderFilter = None,
    older_than: OlderFilter = None,
    younger_than: YoungerFilter = None,
    operator: AsOperator = None,
    as_json: _Json = False,
) -> None:
    """Group dead letters that failed alike: same error, same place; the largest group first.

    Example: [bold]messaging dead groups[/bold], then [bold]messaging dead replay --group FINGERPRINT[/bold]
    """
    selection = selection_of(
        name=name, error=error, fingerprint=None, sender=sender, older_than=older_than, younger_than=younger_than
    )
    found = act_as(actor_of(operator), lambda acting: _groups(acting, services or [], selection))
    if as_json:
        print_json([group_record(service, group) for service, group in found])
    elif found:
        show_groups(found)
    else:
        line("No dead letters.")


@app.command()
def show(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="[SERVICE] ID", help="An id (its beginning is enough); a service makes it quicker."),
    ],
    *,
    operator: AsOperator = None,
    as_json: _Json = False,
) -> None:
    """Show one dead letter in full: why it failed, where, and the decrypted payload.

    Example: [bold]messaging dead show 0198c2f4[/bold]
    """
    letter = act_as(actor_of(operator), lambda acting: one_letter(acting, targets))
    if as_json:
        print_json(letter_record(letter, is_full=True))
    else:
        show_letter(letter)


@app.command()
def replay(
    targets: _Targets = None,
    *,
    reason: Reason,
    name: NameFilter = None,
    error: ErrorFilter = None,
    fingerprint: FingerprintFilter = None,
    sender: SenderFilter = None,
    older_than: OlderFilter = None,
    younger_than: YoungerFilter = None,
    limit: Annotated[int | None, typer.Option(help="At most so many, oldest first.", min=1, show_default=False)] = None,
    rate: Annotated[
        float | None, typer.Option(help="At most so many per second.", min=0.01, show_default=False)
    ] = None,
    canary: Annotated[
        int | None, typer.Option(help="Replay so many and stop, to look at them first.", min=1, show_default=False)
    ] = None,
    stop_after: Annotated[
        int, typer.Option("--stop-after", metavar="M", help="Stop after so many failures in a row.", min=1)
    ] = 10,
    force: Annotated[
        bool, typer.Option("--force", help="Run even what is recorded as done or very old (needs the right to).")
    ] = False,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    operator: AsOperator = None,
    as_json: _Json = False,
) -> None:
    """Give failed messages back to the one service where they failed; no other subscriber sees them again.

    Ctrl-C is safe: every message is then either replayed or still dead.

    Exit codes: 0 all replayed, 1 some failed or the pass stopped, 5 nothing matched.

    Example: [bold]messaging dead replay orders --error ValueError --canary 1 --reason "fixed in 1.4"[/bold]
    """
    selection = selection_of(
        name=name, error=error, fingerprint=fingerprint, sender=sender, older_than=older_than, younger_than=younger_than
    )
    _require_narrow(targets, selection, verb="replay")
    order = ReplayOrder(
        reason=reason,
        limit=limit,
        rate_per_s=rate,
        canary=canary,
        force=force,
        stop_after=stop_after,
        dry_run=dry_run,
        is_json=as_json,
    )
    actor = actor_of(operator)
    if not (yes or dry_run):
        question = "Replay them by force" if force else "Replay them"
        _ask(actor, targets or [], selection, question, bound=order.bound, replaying=True)

    async def act(acting: Operator) -> int:
        services, chosen = await services_and_selection(acting, targets or [], selection)
        return await replay_all(acting.dead_letters, services, chosen, order=order)

    raise typer.Exit(act_as(actor, act))


@app.command()
def discard(
    targets: _Targets = None,
    *,
    reason: Reason,
    name: NameFilter = None,
    error: ErrorFilter = None,
    fingerprint: FingerprintFilter = None,
    sender: SenderFilter = None,
    older_than: OlderFilter = None,
    younger_than: YoungerFilter = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    operator: AsOperator = None,
    as_json: _Json = False,
) -> None:
    """Remove dead letters for good. There is no way back.

    Example: [bold]messaging dead discard 0198c2f4 --reason "test order"[/bold]
    """
    selection = selection_of(
        name=name, error=error, fingerprint=fingerprint, sender=sender, older_than=older_than, younger_than=younger_than
    )
    _require_narrow(targets, selection, verb="discard")
    actor = actor_of(operator)
    if not (yes or dry_run):
        _ask(actor, targets or [], selection, "Discard them for good", bound=None, replaying=False)

    async def act(acting: Operator) -> int:
        services, chosen = await services_and_selection(acting, targets or [], selection)
        return await discard_all(acting.dead_letters, services, chosen, reason=reason, dry_run=dry_run, is_json=as_json)

    raise typer.Exit(act_as(actor, act))


async def _groups(acting: Operator, arguments: Sequence[str], selection: Selection) -> list[tuple[str, Group]]:
    services, chosen = await services_and_selection(acting, arguments, selection)
    found = [(service, group) for service in services for group in await acting.dead_letters.groups(service, chosen)]
    return sorted(found, key=lambda pair: -pair[1].count)


def _require_narrow(targets: Sequence[str] | None, selection: Selection, *, verb: str) -> None:
    if not targets and selection == Selection():
        raise UsageError(
            f"say what to {verb}: a service, ids, or a filter such as --group; "
            f"`messaging dead groups` shows what there is, --dry-run what would be done"
        )


def _ask(
    actor: Actor,
    targets: Sequence[str],
    selection: Selection,
    question: str,
    *,
    bound: int | None,
    replaying: bool,
) -> None:
    """Show what would be done and ask; a no ends the program.

    The connection is closed meanwhile: a person may take longer than a heartbeat.
    """
    if not sys.stdin.isatty():
        raise UsageError("nobody is at the terminal to be asked: say --yes, or look first with --dry-run")
    chosen = act_as(
        actor,
        lambda acting: listed_letters(acting, targets, selection, limit=_CONFIRM_SHOWN, replayable_only=replaying),
    )
    count = chosen.total if bound is None else min(bound, chosen.total)
    if not count:
        # The act itself says why there is nothing to do.
        return
    show_letters(chosen.letters[:count])
    if count > _CONFIRM_SHOWN:
        line(f"… and {count - _CONFIRM_SHOWN} more")
    if not typer.confirm(f"{question} ({count})"):
        line("Nothing was done.", stderr=True)
        raise typer.Exit(Exit.FAILURE)


app.command("edit")(edit)
