"""A type checker tells a right handler from a wrong one: this folder's other files are its cases.

`admitted.py` must pass; in `rejected.py` each wrong line names the error it must cause, and an ignore comment that
ignores nothing is an error of its own (`warn_unused_ignores`, part of strict). Nothing of them is ever run. `make
check` checks them as well, as part of everything; the test sees to it that `make test` does.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
ROOT: Final = FOLDER.parent.parent
TIMEOUT_S: Final = 110.0


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_right_handlers_are_admitted_and_wrong_ones_rejected() -> None:
    done = mypy(str(FOLDER))

    assert done.stdout == ""
    assert done.returncode == 0, done.stderr


def test_the_wrong_lines_fail_without_their_comments(tmp_path: Path) -> None:
    """The control: the file passes because of its comments, not because nothing is looked at."""
    wrong = (FOLDER / "rejected.py").read_text()
    bare = tmp_path / "bare.py"
    bare.write_text(re.sub(r"  # type: ignore\[.*?\]", "", wrong))

    done = mypy(str(bare))

    complaints = set(re.findall(r"bare\.py:(\d+): error", done.stdout))
    expected = {str(number) for number, line in enumerate(wrong.splitlines(), start=1) if "# type: ignore[" in line}
    assert done.returncode == 1
    assert len(expected) > 20
    assert complaints == expected
