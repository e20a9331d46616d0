"""The gate on coverage: what it lets through and what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

SCRIPT: Final = Path(__file__).resolve().parents[2] / "scripts" / "check_coverage.py"


def report(*, percent: float = 95.0, path: str = "messaging/core/retry.py", **missing: Any) -> dict[str, Any]:
    return {
        "totals": {"percent_covered": percent},
        "files": {path: {"missing_lines": [], "missing_branches": [], **missing}},
    }


def check(folder: Path, content: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "coverage.json"
    file.write_text(json.dumps(content))
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_good_report_passes_silently(tmp_path: Path) -> None:
    done = check(tmp_path, report())

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_too_little_altogether_fails_with_the_figure(tmp_path: Path) -> None:
    done = check(tmp_path, report(percent=91.94))

    assert (done.returncode, done.stdout) == (1, "coverage: 91.9 % of lines and branches are covered, below 92 %\n")


@pytest.mark.parametrize("path", ["messaging/core/retry.py", "messaging/security/seal.py"])
@pytest.mark.parametrize("missing", [{"missing_lines": [7]}, {"missing_branches": [[3, 7]]}])
def test_a_hole_where_safety_rests_fails_with_its_place(tmp_path: Path, path: str, missing: dict[str, Any]) -> None:
    done = check(tmp_path, report(path=path, **missing))

    assert done.returncode == 1
    assert path in done.stdout
    assert "7" in done.stdout


def test_a_hole_elsewhere_counts_only_in_the_total(tmp_path: Path) -> None:
    done = check(tmp_path, report(path="messaging/service.py", missing_lines=[7]))

    assert done.returncode == 0
