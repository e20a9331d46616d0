"""`Narrator`: prints the story as numbered steps with the time since the beginning."""

import time
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from messaging.cli.render import console, text

__all__ = ["Narrator"]

_TITLE_WIDTH: Final = 72
_INDENT: Final = 4


class Narrator:
    """Prints to stdout. Everything is escaped: some of it came in messages."""

    def __init__(self) -> None:
        self._console = console()
        self._started_s = time.monotonic()
        self._steps = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started_s

    def step(self, title: str) -> None:
        """Begin a step."""
        self._steps += 1
        heading = text(f"{self._steps:>2}  ", "bold cyan").append_text(text(f"{title:<{_TITLE_WIDTH}}", "bold"))
        self._console.print()
        self._console.print(heading.append_text(text(f"{self.elapsed_s:6.1f} s", "dim")), soft_wrap=True)

    def tell(self, words: str, detail: str = "", *, mark: str = "") -> None:
        """Print one line of a step.

        Args:
            words: What happened.
            detail: What it happened with, less prominent.
            mark: A sign before it: `good`, `bad` or none.
        """
        signs = {"good": text("✓ ", "green"), "bad": text("✗ ", "red")}
        line = Text(" " * _INDENT).append_text(signs.get(mark, text("  "))).append_text(text(words))
        if detail:
            line.append_text(text(f"  {detail}", "dim"))
        self._console.print(line, soft_wrap=True)

    def show(self, rows: Sequence[tuple[str, object]]) -> None:
        """Print names and values below one another."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            label = text(f"{'':<{_INDENT + 2}}{name:<{width}}  ", "dim")
            self._console.print(label.append_text(text(value)), soft_wrap=True)

    def dump(self, body: bytes, *, lines: int) -> None:
        """Print the beginning of some bytes as hexadecimal digits with their ASCII beside them."""
        for start in range(0, min(len(body), 16 * lines), 16):
            part = body[start : start + 16]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)
            row = text(f"{start:04x}  {part.hex(' '):<48}  ", "dim").append_text(text(shown, "yellow"))
            self._console.print(Text(" " * (_INDENT + 2)).append_text(row), soft_wrap=True)

    def close(self, words: str) -> None:
        """Print the last line."""
        self._console.print()
        self._console.print(text(words, "bold green"), soft_wrap=True)
