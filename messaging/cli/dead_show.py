"""How dead letters look: tables, one in full, records for `--json`. Every word of them may come from an attacker."""

from collections.abc import Sequence

from rich.text import Text

from messaging.cli.render import counted, json_text, line, shown_time, table, text
from messaging.core.dead_letter import DeadLetter, Group
from messaging.core.names import type_of

__all__ = ["SHORT_ID", "group_record", "letter_record", "show_groups", "show_letter", "show_letters"]

# Enough of an id to be typed back; ids begin with the time, so the digits that differ come late.
SHORT_ID = 16
_REASON_CHARS = 80


def show_letters(letters: Sequence[DeadLetter], *, title: str = "") -> None:
    """Print dead letters as a table, one row each."""
    table(
        title,
        ("ID", "SERVICE", "MESSAGE", "FROM", "DIED", "ATTEMPTS", "ERROR", "REASON"),
        (
            (
                letter.id[:SHORT_ID],
                letter.service,
                _message_of(letter),
                letter.sender or "-",
                shown_time(letter.died_at_ms or None),
                letter.fault.attempts,
                letter.fault.error,
                _short(letter.fault.reason),
            )
            for letter in letters
        ),
    )


def show_groups(groups: Sequence[tuple[str, Group]]) -> None:
    """Print groups, each with its service, as a table."""
    table(
        "",
        ("FINGERPRINT", "SERVICE", "COUNT", "FIRST", "LAST", "MESSAGES", "ERROR", "REASON"),
        (
            (
                found.fingerprint,
                service,
                found.count,
                shown_time(found.first_seen_ms or None),
                shown_time(found.last_seen_ms or None),
                " ".join(found.message_names),
                found.error,
                _short(found.reason),
            )
            for service, found in groups
        ),
    )


def show_letter(letter: DeadLetter) -> None:
    """Print everything about one dead letter."""
    fault = letter.fault
    line(text("Dead letter ", "bold"), text(letter.id, "bold"), text(" of "), text(letter.service, "bold"))
    if not letter.is_verified:
        line(text("Nothing below is proven: ", "bold red"), letter.why_not or "the signature does not hold")
    _row(
        "message",
        f"{_message_of(letter)}  {'' if letter.kind is None else letter.kind.word}  {letter.message_id or ''}",
    )
    _row(
        "from",
        f"{letter.sender or '-'}, issued {shown_time(letter.issued_at_ms or None)}, key {letter.key_state or '-'}",
    )
    times = f"{counted(fault.attempts, 'attempt')}, {counted(fault.replays, 'replay')}"
    _row("died", f"{shown_time(letter.died_at_ms or None)} after {times}")
    for run in fault.history:
        _row("  failed", f"{shown_time(run.at_ms)}  {run.error}")
    _row("where", " ".join(part for part in (fault.handler, fault.instance, fault.host, fault.service_version) if part))
    _row("error", text(f"{fault.error}: {fault.reason}", "red"))
    for cause in fault.chain:
        _row("  because", f"{cause.error}: {cause.reason}")
    _row("group", fault.fingerprint)
    _row("replay", "possible" if letter.is_replayable else f"not possible: {letter.why_not or 'unknown'}")
    if fault.fields:
        _block("fields", json_text(dict(fault.fields)))
    if fault.trace:
        _block("trace", fault.trace)
    if letter.unreadable_because is None and letter.is_verified:
        _block("payload", json_text(letter.payload))
    else:
        _row("payload", f"not readable: {letter.unreadable_because or 'the letter is not verified'}")


def letter_record(letter: DeadLetter, *, is_full: bool = False) -> dict[str, object]:
    """Return a dead letter as plain values; the payload only where it is asked for."""
    record: dict[str, object] = {
        "id": letter.id,
        "service": letter.service,
        "verified": letter.is_verified,
        "message_name": letter.message_name,
        "message_version": letter.message_version,
        "message_id": letter.message_id,
        "correlation_id": letter.correlation_id,
        "kind": None if letter.kind is None else letter.kind.word,
        "sender": letter.sender,
        "issued_at_ms": letter.issued_at_ms,
        "died_at_ms": letter.died_at_ms,
        "key_state": letter.key_state,
        "replayable": letter.is_replayable,
        "why_not": letter.why_not,
        "fault": letter.fault.to_map(),
    }
    if is_full:
        record |= {"payload": letter.payload, "unreadable_because": letter.unreadable_because}
    return record


def group_record(service: str, found: Group) -> dict[str, object]:
    """Return a group as plain values."""
    return {
        "fingerprint": found.fingerprint,
        "service": service,
        "error": found.error,
        "reason": found.reason,
        "message_names": found.message_names,
        "count": found.count,
        "first_seen_ms": found.first_seen_ms,
        "last_seen_ms": found.last_seen_ms,
    }


def _message_of(letter: DeadLetter) -> str:
    return type_of(letter.message_name, letter.message_version) if letter.message_name else "-"


def _short(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= _REASON_CHARS else f"{words[: _REASON_CHARS - 1]}…"


def _row(label: str, value: str | Text) -> None:
    line(text(f"  {label:<10}", "dim"), value)


def _block(label: str, value: str) -> None:
    line(text(f"  {label}", "dim"))
    for row in value.splitlines():
        line("    ", row)
