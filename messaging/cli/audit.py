"""`messaging audit`: what operators did to dead letters, from the audit stream, each record with its proof."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from messaging.ambient import real_ambient
from messaging.cli.dead_select import age_s
from messaging.cli.exits import Exit, NothingMatchedError
from messaging.cli.inspect import read_trust
from messaging.cli.key_place import keys_folder
from messaging.cli.link import connected
from messaging.cli.operators import operator_settings
from messaging.cli.render import counted, line, print_json, shown_time, table
from messaging.security.audit import AuditRecord, Proof, read_record
from messaging.security.bundle import TrustBundle
from messaging.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="What operators did: replays and discards, signed.", no_args_is_help=True, rich_markup_mode="rich"
)

_LISTED: Final = 1_000


@app.callback()
def _group() -> None:
    """Records of what operators did."""


@app.command("list")
def list_(
    *,
    service: Annotated[str | None, typer.Option(help="Only dead letters of this service.", show_default=False)] = None,
    operator: Annotated[
        str | None, typer.Option("--operator", metavar="ops:NAME", help="Only this operator.", show_default=False)
    ] = None,
    younger_than: Annotated[
        str | None, typer.Option("--younger-than", metavar="AGE", help="Only since: 30m, 2h, 1d.", show_default=False)
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Bundle that knows the keys; default: of MESSAGING_KEYS.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="The latest so many.", min=1)] = _LISTED,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the records of the audit stream, oldest first, and whether each is signed by whom it names.

    Exit codes: 0 all signed, 1 some prove nothing, 5 there is no audit stream.

    Example: [bold]messaging audit list --service orders --younger-than 1d[/bold]
    """
    settings = operator_settings()
    bundle = read_trust(trust if trust is not None else keys_folder(None), None)
    wanted = {key: value for key, value in (("service", service), ("operator", operator)) if value is not None}
    since_ms = 0 if younger_than is None else real_ambient().now_ms() - round(age_s(younger_than) * 1000)
    records = asyncio.run(_records(settings, bundle, wanted, since_ms=since_ms, limit=limit))
    if as_json:
        print_json([_shown(record) for record in records])
    elif records:
        _show(records)
    else:
        line("No records.")
    doubtful = sum(record.proof is not Proof.SIGNED for record in records)
    if doubtful:
        line(f"{counted(doubtful, 'record')} proved nothing: see PROOF", stderr=True)
        raise typer.Exit(Exit.FAILURE)


async def _records(
    settings: Settings, bundle: TrustBundle, wanted: dict[str, str], *, since_ms: int, limit: int
) -> Sequence[AuditRecord]:
    latest: deque[AuditRecord] = deque(maxlen=limit)
    async with connected(settings, name="audit") as transport:
        queue = settings.names.audit
        if await transport.depth(queue) is None:
            raise NothingMatchedError(
                f"there is no audit stream {queue}: `messaging topology apply --audit MODULE:SERVICE…` makes it; "
                "until then the log alone says who did what"
            )
        async with aclosing(transport.history(queue)) as bodies:
            async for body in bodies:
                record = read_record(body, bundle)
                if _is_wanted(record, wanted, since_ms):
                    latest.append(record)
    return latest


def _is_wanted(record: AuditRecord, wanted: dict[str, str], since_ms: int) -> bool:
    at_ms = _time_of(record)
    if at_ms is not None and at_ms < since_ms:
        return False
    return all(record.fields.get(key) == value for key, value in wanted.items())


def _time_of(record: AuditRecord) -> int | None:
    at_ms = record.fields.get("at_ms")
    return at_ms if isinstance(at_ms, int) else None


def _show(records: Sequence[AuditRecord]) -> None:
    table(
        "",
        ("AT", "PROOF", "WHO", "ACT", "SERVICE", "LETTERS", "REASON"),
        (
            (
                shown_time(_time_of(record)),
                record.proof.value,
                record.by or "-",
                record.fields.get("act", "-"),
                record.fields.get("service", "-"),
                _letters_of(record),
                record.fields.get("reason", "-"),
            )
            for record in records
        ),
    )


def _letters_of(record: AuditRecord) -> str:
    letters = record.fields.get("letters")
    if not isinstance(letters, list):
        counts = [f"{key} {value}" for key in ("done", "failed") if (value := record.fields.get(key))]
        return ", ".join(counts) or "-"
    ids = [str(letter.get("id", "?"))[:16] for letter in letters if isinstance(letter, dict)]
    more = f" and {len(ids) - 2} more" if len(ids) > 2 else ""
    return " ".join(ids[:2]) + more


def _shown(record: AuditRecord) -> dict[str, Any]:
    return {"proof": record.proof.value, "by": record.by, **{str(key): value for key, value in record.fields.items()}}
