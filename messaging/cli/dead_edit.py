"""`messaging dead edit`: what failed, corrected and sent as a new message.

Nobody can change a message that somebody else signed. So the corrected one is the operator's own: signed by the
operator, under the operator's rights, checked against the contract, and linked to the original by its correlation, its
cause and a private header.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from pydantic import ValidationError

from messaging.ambient import real_ambient
from messaging.cli.dead_find import one_letter
from messaging.cli.dead_select import said_why
from messaging.cli.exits import UsageError
from messaging.cli.load import load_message
from messaging.cli.operators import AsOperator, act_as, actor_of
from messaging.cli.render import json_text, line, plain_line, print_json
from messaging.core.codec import describe, encode_model
from messaging.core.dead_letter import DeadLetter, Selection
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Message, contract_of
from messaging.core.topology import routing_key
from messaging.operators import Operator

__all__ = ["EDITED_FROM", "edit"]

# Private headers of the new message: which bytes it corrects, and why.
EDITED_FROM: Final = "edited_from"
EDIT_REASON: Final = "edit_reason"
_REASON_CHARS: Final = 1_000


def edit(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="[SERVICE] ID", help="An id (its beginning is enough); a service makes it quicker."),
    ],
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="MODULE",
            help="Module with the message class, such as services.orders.contract.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        str,
        typer.Option("--reason", callback=said_why, help="Why; travels with the new message.", show_default=False),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="New value of a field, as JSON or text; a.b for a field below a.",
            show_default=False,
        ),
    ] = None,
    payload: Annotated[
        str | None, typer.Option(help="The whole payload as JSON; - reads it from stdin.", show_default=False)
    ] = None,
    editor: Annotated[str, typer.Option(envvar=["VISUAL", "EDITOR"], help="Program that edits the payload.")] = "vi",
    discard: Annotated[
        bool, typer.Option("--discard", help="Discard the dead letter once the new one is sent.")
    ] = False,
    operator: AsOperator = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Correct what failed and send it as a new message of yours, checked against its contract.

    Without --set and --payload the payload opens in $EDITOR. You need the right to send such a message yourself; the
    original stays among the dead letters unless --discard. Print the id of the new message.

    Example: [bold]messaging dead edit 0198c2f4 --from services.orders.contract --set total_cents=4200 --reason x[/bold]
    """
    actor = actor_of(operator)
    letter = act_as(actor, lambda acting: one_letter(acting, targets))
    kind = _editable(letter)
    model = load_message(source, f"{letter.message_name}/{letter.message_version}", kind=kind)
    # Nobody is connected meanwhile: a person may take longer than a heartbeat.
    message = _message(model, _edited(letter, changes or (), payload, editor=editor), letter)
    lifetime_s = actor.settings.lifetime_s

    async def send(acting: Operator) -> UUID:
        envelope = _envelope(message, letter, sender=acting.name, reason=reason, lifetime_s=lifetime_s)
        await acting.publisher.emit(envelope, key=routing_key(envelope.name, envelope.version))
        if discard:
            selection = Selection(ids=frozenset({letter.id}))
            await acting.dead_letters.discard(letter.service, selection, reason=f"sent anew as {envelope.id}: {reason}")
        return envelope.id

    sent = act_as(actor, send)
    if as_json:
        print_json({"id": sent, "edited_from": letter.id, "name": letter.message_name, "discarded": discard})
        return
    plain_line(sent)
    if not discard:
        line(f"The original stays: messaging dead discard {letter.id[:16]} --reason …", stderr=True)


def _editable(letter: DeadLetter) -> Kind:
    if not letter.is_verified or letter.message_id is None or letter.kind not in (Kind.COMMAND, Kind.EVENT):
        raise UsageError(
            f"dead letter {letter.id} is no command or event that is proven, so there is nothing to correct; "
            "`messaging dead show` says what it is"
        )
    if letter.payload is None:
        raise UsageError(f"the payload of dead letter {letter.id} cannot be read here: {letter.unreadable_because}")
    return letter.kind


def _edited(letter: DeadLetter, changes: Sequence[str], payload: str | None, *, editor: str) -> str:
    before = json_text(letter.payload)
    if payload is not None:
        if changes:
            raise UsageError("--set and --payload: say one of them")
        return sys.stdin.read() if payload == "-" else payload
    if changes:
        fields = json.loads(before)
        for change in changes:
            _set(fields, change)
        return json.dumps(fields)
    if not sys.stdin.isatty():
        raise UsageError("nobody is at the terminal to edit: say --set FIELD=VALUE, or --payload -")
    after = _by_hand(before, editor)
    if after.strip() == before.strip():
        raise UsageError(
            f"nothing was changed, so nothing was sent; as it was: messaging dead replay {letter.id[:16]} --reason …"
        )
    return after


def _by_hand(text: str, editor: str) -> str:
    # The payload is in clear here: a folder that is this user's alone, gone when the editor ends.
    with tempfile.TemporaryDirectory(prefix="messaging-") as folder:
        path = Path(folder) / "payload.json"
        path.write_text(f"{text}\n")
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603 - the user's own editor
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise UsageError(f"the editor {editor!r} did not end well ({error}); set EDITOR, or say --set") from None
        return path.read_text()


def _set(fields: Any, change: str) -> None:
    name, sign, text = change.partition("=")
    *path, last = name.split(".")
    place = fields
    for step in path:
        place = place.get(step) if isinstance(place, dict) else None
    if not sign or not last or not isinstance(place, dict):
        raise UsageError(f"--set {change}: write FIELD=VALUE, with a.b for a field below an existing a")
    try:
        place[last] = json.loads(text)
    except ValueError:
        place[last] = text


def _message(model: type[Message], text: str, letter: DeadLetter) -> Message:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{letter.message_name}: {describe(error)}; nothing was sent") from None


def _envelope(message: Message, letter: DeadLetter, *, sender: str, reason: str, lifetime_s: float) -> Envelope:
    ambient, contract = real_ambient(), contract_of(message)
    now_ms = ambient.now_ms()
    audience = f"event:{contract.name}" if contract.kind is Kind.EVENT else contract.owner
    return Envelope(
        id=ambient.new_id(),
        kind=contract.kind,
        name=contract.name,
        version=contract.version,
        sender=sender,
        audience=audience,
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + int(lifetime_s * 1000),
        payload=encode_model(message, contract.codec),
        codec=contract.codec,
        correlation_id=letter.correlation_id or letter.message_id,
        causation_id=letter.message_id,
        headers={EDITED_FROM: letter.leaf, EDIT_REASON: reason[:_REASON_CHARS]},
    )
