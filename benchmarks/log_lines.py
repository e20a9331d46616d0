"""What a log line costs: one that nobody wants, and one that is written, as `messaging run` writes them.

    python -m benchmarks.log_lines [--lines 5000] [--rounds 9] [--out benchmarks/results]

The line is `delivery.handled` with its seven fields, which every message has at level debug. CPU µs of this process for
each line, the lowest of all rounds; written lines go to a file, one system call each.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from benchmarks.tables import rows
from messaging.cli.logs import LogFormat, LogLevel, configure_logs
from messaging.runtime.steps import steps_are_logged

__all__ = ["WAYS", "document", "measure"]

FIELDS: Final = {
    "queue": "messaging.orders.commands",
    "kind": "command",
    "message_name": "orders.place_order",
    "message_id": str(UUID(int=1)),
    "sender": "gateway",
    "correlation_id": str(UUID(int=2)),
    "attempt": 1,
}

# As `structlog.get_logger` makes it: configured loggers are of several classes.
Log = Any


def asked_first(log: Log) -> None:
    """What the library does with steps of every message."""
    if steps_are_logged():
        log.debug("delivery.handled", **FIELDS)


def logged(log: Log) -> None:
    """What it does with everything else."""
    log.debug("delivery.handled", **FIELDS)


# (level that is let through, format, how it is logged) by what the table says.
WAYS: Final = {
    "unwanted, asked first (`runtime.steps`)": (LogLevel.INFO, LogFormat.JSON, asked_first),
    "unwanted": (LogLevel.INFO, LogFormat.JSON, logged),
    "written as JSON": (LogLevel.DEBUG, LogFormat.JSON, logged),
    "written for people": (LogLevel.DEBUG, LogFormat.CONSOLE, logged),
}


@contextmanager
def configured(level: LogLevel, format_: LogFormat) -> Iterator[Path]:
    """Configure logs as `messaging run` does; what is written lands in the file that is returned."""
    before = structlog.get_config()
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file, redirect_stderr(file):
        configure_logs(format_, level)
        try:
            yield Path(file.name)
        finally:
            structlog.configure(**before)


def cost_us(act: Callable[[Log], None], lines: int) -> float:
    """Return CPU microseconds of one call, by a logger that has its configuration already."""
    log = structlog.get_logger()
    act(log)
    started_s = time.process_time()
    for _ in range(lines):
        act(log)
    return (time.process_time() - started_s) * 1e6 / lines


def measure(*, lines: int, rounds: int) -> dict[str, float]:
    """Return what each way costs, CPU µs for each line, the lowest of the rounds."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, (level, format_, act) in WAYS.items():
            with configured(level, format_):
                found[way].append(cost_us(act, lines))
    return {way: round(min(costs), 2) for way, costs in found.items()}


def document(found: dict[str, float]) -> str:
    """Return it as Markdown."""
    head = [
        "# What a log line costs",
        "",
        f"structlog {structlog.__version__}, `delivery.handled` with {len(FIELDS)} fields.",
        "",
    ]
    return "\n".join([*head, *rows(["line", "CPU µs"], [[way, str(us)] for way, us in found.items()])])


def main() -> None:
    """Measure, and write the table as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=5000, help="for each figure")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    found = measure(lines=options.lines, rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "log_lines.md").write_text(document(found))
    (options.out / "log_lines.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(document(found))


if __name__ == "__main__":
    main()
