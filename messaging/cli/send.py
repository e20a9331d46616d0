"""`messaging send`, `publish`, `request`: one message from the shell, checked against its contract before it leaves."""

import sys
from typing import Annotated, Any, TypeVar, cast
from uuid import UUID

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from messaging.cli.exits import UsageError
from messaging.cli.load import load_message
from messaging.cli.moments import DeliverAt, moment
from messaging.cli.operators import AsOperator, act_as, actor_of
from messaging.cli.render import plain_line, print_json
from messaging.core.codec import describe
from messaging.core.envelope import Kind
from messaging.core.message import Command, Event, Message, Request, contract_of

__all__ = ["publish", "request", "send"]

M = TypeVar("M", bound=Message)

_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Wire name, such as orders.place_order; /2 behind it takes version 2.", show_default=False
    ),
]
_Payload = Annotated[
    str, typer.Argument(metavar="JSON", help="The fields as a JSON object; - reads it from stdin.", show_default=False)
]
_Source = Annotated[
    str,
    typer.Option(
        "--from", metavar="MODULE", help="Module with the message class, such as services.orders.contract.",
        show_default=False,
    ),
]  # fmt: skip
_MessageId = Annotated[
    UUID | None,
    typer.Option("--id", help="Id of the message; repeat with the same one to be safe.", show_default=False),
]
_Timeout = Annotated[
    float | None, typer.Option(help="Seconds; default: the deadline of the settings.", min=0.001, show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def send(
    name: _Name,
    payload: _Payload,
    *,
    source: _Source,
    operator: AsOperator = None,
    message_id: _MessageId = None,
    timeout: _Timeout = None,
    at: DeliverAt = None,
    as_json: _Json = False,
) -> None:
    """Send one command to the service that owns it, and print its id once the broker has it.

    With --at it waits at the broker in delay levels, which `messaging topology apply --delays` makes.

    Example: [bold]messaging send orders.place_order '{"order_id": "…"}' --from services.orders.contract[/bold]
    """
    deliver_at = moment(at)
    command = cast("Command", _message(source, name, payload, kind=Kind.COMMAND))
    sent = act_as(
        actor_of(operator),
        lambda acting: acting.send(command, message_id=message_id, timeout_s=timeout, deliver_at=deliver_at),
    )
    _show_sent(command, sent, as_json=as_json)


def publish(
    name: _Name,
    payload: _Payload,
    *,
    source: _Source,
    operator: AsOperator = None,
    message_id: _MessageId = None,
    timeout: _Timeout = None,
    as_json: _Json = False,
) -> None:
    """Publish one event to every service that subscribes it, and print its id.

    Example: [bold]messaging publish orders.order_placed - --from services.orders.contract < event.json[/bold]
    """
    event = cast("Event", _message(source, name, payload, kind=Kind.EVENT))
    sent = act_as(actor_of(operator), lambda acting: acting.publish(event, message_id=message_id, timeout_s=timeout))
    _show_sent(event, sent, as_json=as_json)


def request(
    name: _Name,
    payload: _Payload,
    *,
    source: _Source,
    operator: AsOperator = None,
    message_id: _MessageId = None,
    timeout: _Timeout = None,
) -> None:
    """Ask one question and print the answer as JSON.

    Example: [bold]messaging request users.get_user '{"user_id": "…"}' --from services.users.contract[/bold]
    """
    question = cast("Request[Any]", _message(source, name, payload, kind=Kind.REQUEST))
    answer = act_as(
        actor_of(operator), lambda acting: acting.request(question, message_id=message_id, timeout_s=timeout)
    )
    print_json(answer)


def _message(source: str, name: str, payload: str, *, kind: Kind) -> Message:
    model = load_message(source, name, kind=kind)
    text = sys.stdin.read() if payload == "-" else payload
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{name}: {describe(error)}; its fields: {_fields_of(model)}") from None


def _fields_of(model: type[Message]) -> str:
    return ", ".join(_shown_field(name, field) for name, field in model.model_fields.items()) or "none"


def _shown_field(name: str, field: FieldInfo) -> str:
    kind = getattr(field.annotation, "__name__", field.annotation)
    return f"{name}: {kind}" if field.is_required() else f"{name}: {kind} (optional)"


def _show_sent(message: Message, sent: UUID, *, as_json: bool) -> None:
    if as_json:
        contract = contract_of(message)
        print_json({"id": sent, "name": contract.name, "version": contract.version, "kind": contract.kind.word})
        return
    plain_line(sent)
