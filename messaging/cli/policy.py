"""`messaging policy check`: asks the trust bundle a question before a message does."""

from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.cli.exits import Exit, UsageError
from messaging.cli.key_place import trust_place
from messaging.cli.render import line, print_json
from messaging.cli.trust import read_bundle
from messaging.core.envelope import Kind
from messaging.core.names import is_message_name, is_sender, owner_of
from messaging.security.bundle import TrustBundle
from messaging.security.policy_check import Answer, ask_to_read, ask_to_replay, ask_to_send

__all__ = ["app"]

app = typer.Typer(help="Questions to the policy.", no_args_is_help=True, rich_markup_mode="rich")

_SENDABLE: Final = {kind.word: kind for kind in (Kind.COMMAND, Kind.REQUEST, Kind.EVENT)}


@app.callback()
def _group() -> None:
    """Questions to the policy of the trust bundle."""


@app.command()
def check(
    *,
    sender: Annotated[str, typer.Option("--from", metavar="IDENTITY", help="Who, such as users.", show_default=False)],
    kind: Annotated[str, typer.Option(help="command, request, event, replay or force.", show_default=False)],
    name: Annotated[str, typer.Option(help="Message name, such as orders.place_order.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(help="Of events who reads; of replays where it failed; else the owner.", show_default=False),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--keys", "--trust", help="Keys folder; default: MESSAGING_KEYS.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a message may be sent, and which rule decided or which line is missing.

    Exit codes: 0 allowed, 4 denied.

    Example: [bold]messaging policy check --from users --kind command --name orders.place_order --to orders[/bold]
    """
    if not is_sender(sender) or not is_message_name(name):
        raise UsageError(f"--from {sender} --name {name}: names look like users, ops:alice, and orders.place_order")
    bundle = read_bundle(trust_place(folder))
    answers = _answers(bundle, sender, kind, name, to)
    is_allowed = all(answer.is_allowed for answer in answers)
    if as_json:
        print_json(
            {
                "allowed": is_allowed,
                "bundle_version": bundle.version,
                "because": [answer.because for answer in answers],
                "missing": [answer.missing for answer in answers if answer.missing],
            }
        )
    else:
        _show(answers, bundle)
    if not is_allowed:
        raise typer.Exit(Exit.REFUSED)


def _answers(bundle: TrustBundle, sender: str, kind: str, name: str, to: str | None) -> list[Answer]:
    if kind in ("replay", "force"):
        return [ask_to_replay(bundle, sender, name, to or owner_of(name), force=kind == "force")]
    sendable = _SENDABLE.get(kind)
    if sendable is None:
        raise UsageError(f"--kind {kind}: say command, request, event, replay or force")
    if sendable is Kind.EVENT:
        reading = [] if to is None else [ask_to_read(bundle, to, name)]
        return [ask_to_send(bundle, sender, sendable, name), *reading]
    if to not in (None, owner_of(name)):
        raise UsageError(f"--to {to}: {name} belongs to {owner_of(name)}, and goes nowhere else")
    return [ask_to_send(bundle, sender, sendable, name)]


def _show(answers: list[Answer], bundle: TrustBundle) -> None:
    for answer in answers:
        line(f"{'allowed' if answer.is_allowed else 'denied'}: {answer.because}")
        if answer.missing:
            line(f"  add to the trust bundle (version {bundle.version}): {answer.missing}")
