"""`Finding`: one line of a diagnosis: what was looked at, how it is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["Finding", "State", "failed", "fine", "warned", "worst"]


class State(IntEnum):
    """How it is; the value is the exit code that monitoring plug-ins know."""

    OK = 0
    WARN = 1
    FAIL = 2

    @property
    def word(self) -> str:
        """The word of tables and records."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a diagnosis.

    Attributes:
        check: What was looked at.
        state: How it is.
        words: What was found.
        remedy: What to do, where something is wrong.
    """

    check: str
    state: State
    words: str
    remedy: str | None = None


def fine(check: str, words: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check=check, state=State.OK, words=words)


def warned(check: str, words: str, *, remedy: str) -> Finding:
    """Return a finding that somebody should look at in daylight."""
    return Finding(check=check, state=State.WARN, words=words, remedy=remedy)


def failed(check: str, words: str, *, remedy: str) -> Finding:
    """Return a finding that stops messages."""
    return Finding(check=check, state=State.FAIL, words=words, remedy=remedy)


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state; OK when there is nothing."""
    return max((finding.state for finding in findings), default=_BEST)


_BEST: Final = State.OK
