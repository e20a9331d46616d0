r"""The only way from a string to a terminal: what came in a message must not steer the operator's screen.

Rules:
- Everything is printed as `rich.text.Text`, never as markup: `[red]` in a payload stays `[red]`.
- Control and format characters (escape sequences, carriage returns, direction overrides) become visible escapes such as
  `\x1b`; JSON goes out as pure ASCII.
- A console is made where it is used: tests and pipes replace the streams.
"""

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "console",
    "counted",
    "escaped",
    "json_line",
    "json_text",
    "line",
    "plain_line",
    "print_json",
    "problem",
    "shown_age",
    "shown_time",
    "table",
    "text",
]

# Cc: C0, DEL, C1. Cf: direction overrides, zero width. Cs, Co, Cn: what no terminal agrees upon. Zl, Zp: line breaks.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Rows are never folded: in a pipe grep and awk want them whole, and a terminal that is too narrow wraps them by itself,
# so that an id can still be copied in one piece.
_TABLE_WIDTH: Final = 400


def escaped(value: object, *, multiline: bool = False) -> str:
    """Return the text of a value with every control or format character made visible.

    Args:
        value: Anything; its `str()` is shown.
        multiline: Whether line feeds may stay.
    """
    shown = str(value)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(char if multiline and char == "\n" else _visible(char) for char in shown)


def text(value: object, style: str = "", *, multiline: bool = False) -> Text:
    """Return a value as text that is safe to print: escaped, and never read as markup."""
    return Text(escaped(value, multiline=multiline), style=style)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console on the current streams; `width` in characters instead of the terminal's."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def line(*parts: str | Text, stderr: bool = False) -> None:
    """Print one line from parts; plain strings are escaped, `Text` must come from `text()`."""
    whole = Text()
    for part in parts:
        whole.append_text(part if isinstance(part, Text) else text(part))
    console(stderr=stderr).print(whole, soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 dead letter`, `2 dead letters`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plain_line(value: object) -> None:
    """Print one value on stdout for scripts: escaped, no colour, no wrapping."""
    sys.stdout.write(f"{escaped(value)}\n")


def problem(message: object, *, remedy: str | None = None) -> None:
    """Print one line on stderr that says what is wrong, with an optional second one that says what to do."""
    words = " ".join(str(message).split()) or type(message).__name__
    line(text("error: ", "bold red"), words, stderr=True)
    if remedy is not None:
        line(text("  try: ", "bold"), remedy, stderr=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout, a titled one after an empty line. Cells are values, or `Text` from `text()`."""
    drawn = Table(
        title=text(title) if title else None, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        drawn.add_column(column, no_wrap=True)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    screen = console(width=_TABLE_WIDTH)
    if title:
        screen.print()
    screen.print(drawn, crop=False, overflow="ignore", soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value as JSON on stdout, ASCII only, so that no character of it acts on a terminal."""
    sys.stdout.write(f"{json_text(value)}\n")


def json_text(value: object) -> str:
    """Return a value as indented JSON, ASCII only; bytes become base64, what JSON cannot say becomes text."""
    plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)
    # DEL is the one control character that JSON leaves as it is; it can stand inside strings only.
    return json.dumps(plain, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")


def json_line(value: object) -> str:
    """Return a value as JSON in one line, as `json_text` does."""
    plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)
    return json.dumps(plain, ensure_ascii=True).replace("\x7f", "\\u007f")


def shown_time(unix_ms: int | None) -> str:
    """Return a point in time as UTC with seconds, or a dash."""
    if unix_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # A claim that no calendar holds: shown as it came.
        return f"{unix_ms} ms"


def shown_age(seconds: float) -> str:
    """Return a duration in its largest fitting unit, such as `3 min`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _visible(char: str) -> str:
    if char == " " or unicodedata.category(char) not in _UNSAFE:
        return char
    number = ord(char)
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
