"""Findings: one line of JSON for each run; from them a table with a row for each fault, and a picture.

`make chaos-report` adds those of the last session to what `docs/chaos-runs.jsonl` keeps (`report.py`).
"""

import importlib
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = [
    "Finding",
    "describe_machine",
    "draw",
    "merged",
    "now",
    "read_findings",
    "table",
    "write_findings",
    "write_report",
]

COLUMNS: Final = (
    "fault",
    "RabbitMQ",
    "seeds",
    "messages",
    "confirmed",
    "duplicates seen",
    "effects twice",
    "lost",
    "dead",
    "left over",
    "recovery s",
    "drain s",
)
# A healed system has this long, seconds (I4).
_LIMIT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one run showed.

    Attributes:
        fault: What was done.
        seed: Of chance.
        messages, confirmed: Calls, and those that were confirmed.
        duplicates: Deliveries that the inbox dropped because their message had run.
        twice: Operations with more than one effect.
        lost: Operations that were confirmed and left no trace.
        dead: Dead letters.
        leaked: What workers held more of at the end than before the load; empty when nothing (I9). None: not counted.
        recovery_s: From healing until every live worker was fed and new work was done.
        drain_s: From the end of the load until nothing waited.
        held: Whether every invariant held.
        broker: Version of RabbitMQ.
        at: When it ended, to the minute, UTC.
    """

    fault: str
    seed: int
    messages: int
    confirmed: int
    duplicates: int
    twice: int
    lost: int
    dead: int
    recovery_s: float
    drain_s: float
    held: bool
    leaked: tuple[str, ...] | None = None
    broker: str = ""
    at: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells this run from others: the same again replaces it."""
        return (self.fault, self.broker, self.seed)


def now() -> str:
    """Return the time of a finding."""
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%MZ")


def read_findings(path: Path) -> list[Finding]:
    """Return the findings of a file; none if there is no file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [
        Finding(**{**line, "leaked": None if line.get("leaked") is None else tuple(line["leaked"])}) for line in lines
    ]


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write findings, one line each."""
    path.write_text("".join(json.dumps(asdict(finding)) + "\n" for finding in findings))


def merged(kept: Iterable[Finding], new: Iterable[Finding]) -> list[Finding]:
    """Return all runs in the order of the table; of a run that was repeated with its seed the last one."""
    runs = {finding.key: finding for finding in (*kept, *new)}
    return [runs[key] for key in sorted(runs)]


def table(findings: Iterable[Finding]) -> str:
    """Return the table: one row for each fault and version, with sums over its seeds; of times the longest."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda found: found.key):
        groups.setdefault((finding.fault, finding.broker), []).append(finding)
    rows = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    rows += ["| " + " | ".join(_cells(*key, runs)) + " |" for key, runs in groups.items()]
    return "\n".join(rows)


def _cells(fault: str, broker: str, runs: Sequence[Finding]) -> list[str]:
    names = ("messages", "confirmed", "duplicates", "twice", "lost", "dead")
    sums = [sum(getattr(found, name) for found in runs) for name in names]
    counted = [found.leaked for found in runs if found.leaked is not None]
    left = str(sum(map(len, counted))) if counted else "-"
    longest = [max(getattr(found, name) for found in runs) for name in ("recovery_s", "drain_s")]
    seeds = ", ".join(str(found.seed) for found in runs)
    return [fault, broker, seeds, *map(str, sums), left, *(f"{seconds:.1f}" for seconds in longest)]


def describe_machine(broker_version: str) -> list[str]:
    """Return what the figures depend on, one line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aio-pika", "aiormq", "sqlalchemy", "asyncpg"))
    return [
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, RabbitMQ {broker_version}, {_postgres()}",
        libraries,
    ]


def write_report(folder: Path, findings: Sequence[Finding], *, machine: Sequence[str]) -> Path:
    """Write everything that a session has found so far; returns the table's file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_findings(folder / "findings.jsonl", findings)
    report = folder / "report.md"
    report.write_text("\n".join([*(f"- {line}" for line in machine), "", table(findings), ""]))
    draw(folder / "recovery.png", findings)
    return report


def draw(path: Path, findings: Sequence[Finding]) -> None:
    """Draw recovery times by fault, a mark for each run; without matplotlib there is no picture."""
    if importlib.util.find_spec("matplotlib") is None or not findings:
        return
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    faults = sorted({finding.fault for finding in findings}, reverse=True)
    figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.2 * len(faults)), layout="constrained")
    for broker, marker in zip(sorted({finding.broker for finding in findings}), "oxs^v", strict=False):
        runs = [finding for finding in findings if finding.broker == broker]
        places = [faults.index(finding.fault) for finding in runs]
        axes.scatter([finding.recovery_s for finding in runs], places, marker=marker, label=f"RabbitMQ {broker}")
    axes.set_yticks(range(len(faults)), faults, fontsize=8)
    axes.set_ylim(-1, len(faults))
    axes.set_xlabel("seconds from healing until every worker was fed and new work was done")
    axes.axvline(_LIMIT_S, linestyle="--", color="black", label=f"promised: {_LIMIT_S} s")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right", bbox_to_anchor=(0.97, 0.98))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _postgres() -> str:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not packaged:
        return "no PostgreSQL"
    said = subprocess.run([str(packaged[-1]), "--version"], capture_output=True, text=True, timeout=20, check=True)
    return said.stdout.strip().replace("postgres (PostgreSQL)", "PostgreSQL")
