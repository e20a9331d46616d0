"""The quickstart of the README runs as printed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TIMEOUT_S: Final = 240.0


def quickstart() -> str:
    """Return the first Python block below the heading of the quickstart."""
    section = re.search(
        r"^## Quickstart.*?^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert section is not None, "README.md needs a Python block below `## Quickstart`"
    return section[1]


def test_the_quickstart_runs_as_printed(tmp_path: Path) -> None:
    script = tmp_path / "quickstart.py"
    script.write_text(quickstart())

    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(r"placed [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", line)]
    assert "failed: total must be positive" in lines
    assert "status='placed'" in lines


def test_the_quickstart_has_sound_types(tmp_path: Path) -> None:
    script = tmp_path / "quickstart.py"
    script.write_text(quickstart())

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout
