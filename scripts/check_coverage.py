"""Compare a coverage report with what this project promises: `python scripts/check_coverage.py REPORT.json`.

Branch coverage of everything together, and every line and branch of the parts on which safety rests.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

MINIMUM_PERCENT: Final = 92.0
COMPLETE: Final = ("messaging/core/", "messaging/security/")


def problems_of(report: dict[str, Any]) -> list[str]:
    """Return one line per promise that does not hold; `report` is what `coverage json` writes."""
    total = report["totals"]["percent_covered"]
    problems = []
    if total < MINIMUM_PERCENT:
        problems.append(f"{total:.1f} % of lines and branches are covered, below {MINIMUM_PERCENT:.0f} %")
    for path, file in sorted(report["files"].items()):
        if not path.startswith(COMPLETE):
            continue
        lines = ", ".join(str(line) for line in file["missing_lines"])
        branches = ", ".join(f"{start}->{end}" for start, end in file.get("missing_branches", []))
        if lines or branches:
            problems.append(f"{path} must be covered completely; lines [{lines}], branches [{branches}]")
    return problems


def main() -> int:
    """Print what does not hold; 0 when all does."""
    problems = problems_of(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write("".join(f"coverage: {problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
