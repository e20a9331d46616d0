"""Keeps what runs have shown: `make chaos-report` adds the findings of the last session to those of earlier ones.

`docs/chaos-runs.jsonl` has a line for each run that was ever kept. The table and the machine in `docs/chaos-report.md`
stand between two marks and are written from it, the picture `docs/recovery.png` too; everything else there is prose.
`python -m tests.chaos.report other/findings.jsonl …` adds other files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.findings import describe_machine, draw, merged, read_findings, table, write_findings
from tests.support.installation import ROOT

__all__ = ["BEGIN", "END", "keep"]

BEGIN: Final = "<!-- runs: written by `make chaos-report` -->"
END: Final = "<!-- end of runs -->"


def keep(docs: Path, sources: Sequence[Path]) -> int:
    """Add the findings of files to those of the report and write it anew.

    Args:
        docs: Folder of the report.
        sources: Files with findings.

    Returns:
        How many runs the report rests on.

    Raises:
        ValueError: The report has no place for the table.
    """
    runs_file, report = docs / "chaos-runs.jsonl", docs / "chaos-report.md"
    head, begin, rest = report.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{report} has no lines {BEGIN!r} and {END!r}, between which the table goes")
    runs = merged(read_findings(runs_file), [found for source in sources for found in read_findings(source)])
    machine = describe_machine(", ".join(sorted({found.broker for found in runs})))
    lines = [BEGIN, *(f"- {line}" for line in machine), "", table(runs), END]
    write_findings(runs_file, runs)
    report.write_text(head + "\n".join(lines) + tail)
    draw(docs / "recovery.png", runs)
    return len(runs)


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    count = keep(ROOT / "docs", named or [ROOT / "build" / "chaos" / "findings.jsonl"])
    print(f"docs/chaos-report.md rests on {count} runs")  # noqa: T201 - a command
