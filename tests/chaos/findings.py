"""Findings: one row for each run, written as JSON lines, a Markdown table, and a picture if matplotlib is here."""

import importlib
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = ["Finding", "describe_machine", "write_report"]

COLUMNS: Final = (
    "fault",
    "seed",
    "messages",
    "confirmed",
    "duplicates seen",
    "effects twice",
    "lost",
    "dead",
    "recovery s",
    "drain s",
)


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
        recovery_s: From healing until every live worker was fed and new work was done.
        drain_s: From the end of the load until nothing waited.
        held: Whether every invariant held.
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

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        counts = (self.seed, self.messages, self.confirmed, self.duplicates, self.twice, self.lost, self.dead)
        return (self.fault, *map(str, counts), f"{self.recovery_s:.1f}", f"{self.drain_s:.1f}")


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
    """Write everything that was found so far; returns the table's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "findings.jsonl").write_text("".join(json.dumps(asdict(finding)) + "\n" for finding in findings))
    rows = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    rows += ["| " + " | ".join(finding.cells) + " |" for finding in sorted(findings, key=lambda row: row.fault)]
    report = folder / "report.md"
    report.write_text("\n".join([*(f"- {line}" for line in machine), "", *rows, ""]))
    _draw(folder / "recovery.png", findings)
    return report


def _draw(path: Path, findings: Sequence[Finding]) -> None:
    """Draw recovery times by fault; without matplotlib there is no picture."""
    if importlib.util.find_spec("matplotlib") is None or not findings:
        return
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    faults = sorted({finding.fault for finding in findings}, reverse=True)
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.3 * len(faults)), layout="constrained")
    places = [faults.index(finding.fault) for finding in findings]
    axes.scatter([finding.recovery_s for finding in findings], places)
    axes.set_yticks(range(len(faults)), faults)
    axes.set_xlabel("seconds from healing until every worker was fed and new work was done")
    axes.axvline(60, linestyle="--")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _postgres() -> str:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not packaged:
        return "no PostgreSQL"
    said = subprocess.run([str(packaged[-1]), "--version"], capture_output=True, text=True, timeout=20, check=True)
    return said.stdout.strip().replace("postgres (PostgreSQL)", "PostgreSQL")
