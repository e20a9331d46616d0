"""The history of a run: a JSON line when an operation begins and one when it ends, so a killed writer loses none."""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TextIO
from uuid import UUID

__all__ = ["Operation", "Outcome", "What", "Writer", "read_history"]


class What(StrEnum):
    """Which operation."""

    APPLY = "apply"
    SPOIL = "spoil"
    KILL = "kill"
    ASK = "ask"
    TRANSFER = "transfer"
    ENTER = "enter"  # in the order of a key
    NEWER = "newer"  # with a field that older replicas do not know
    EXTRA = "extra"  # a command that older replicas do not know
    ASK_EXTRA = "ask_extra"  # a request that older replicas do not know
    STALL = "stall"  # a handler that takes long
    BLOCK = "block"  # a handler that keeps everything else in its process from running


class Outcome(StrEnum):
    """How the call ended."""

    CONFIRMED = "confirmed"  # it returned: the broker has the command, or the answer is here
    UNKNOWN = "unknown"  # it raised, and the message may be on its way all the same
    OPEN = "open"  # no end was written: the caller died


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call.

    Attributes:
        op_id: Its id, and that of its message.
        what: Which.
        outcome: How it ended.
        began_s: When, Unix seconds.
        took_s: How long each try took at most, seconds.
        tries: How often it was called; every one after the first is the same message again.
        error: Class of the last error; empty when it succeeded.
    """

    op_id: UUID
    what: What
    outcome: Outcome
    began_s: float
    took_s: float = 0.0
    tries: int = 1
    error: str = ""


class Writer:
    """Appends lines, each in the file before the next act."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def begin(self, op_id: UUID, what: What) -> None:
        """Note that a call begins."""
        self._write({"op": str(op_id), "what": what, "at": time.time()})

    def end(self, op_id: UUID, outcome: Outcome, *, took_s: float, tries: int = 1, error: str = "") -> None:
        """Note how it ended."""
        told = {"outcome": outcome, "took_s": round(took_s, 3), "tries": tries, "error": error}
        self._write({"op": str(op_id), **told})

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_history(path: Path) -> dict[UUID, Operation]:
    """Return the operations of a file; a last line that was cut off is left out."""
    begun: dict[UUID, dict[str, object]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        begun.setdefault(UUID(found["op"]), {}).update(found)
    return {op_id: _operation(op_id, line) for op_id, line in begun.items() if "what" in line}


def _operation(op_id: UUID, line: dict[str, object]) -> Operation:
    return Operation(
        op_id=op_id,
        what=What(str(line["what"])),
        outcome=Outcome(str(line.get("outcome", Outcome.OPEN))),
        began_s=float(str(line["at"])),
        took_s=float(str(line.get("took_s", 0))),
        tries=int(str(line.get("tries", 1))),
        error=str(line.get("error", "")),
    )
