"""The guide's Python blocks are one program: it runs, its tests pass, its types are sound."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
TIMEOUT_S: Final = 240.0
# What a reader would do with the tests of the page: run each.
RUN_THE_TESTS: Final = """
for name, found in list(globals().items()):
    if name.startswith("test_"):
        asyncio.run(found())
        print("passed", name)
"""


def blocks() -> list[str]:
    """Return the Python blocks of the guide, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "guide.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks()))
    return script


def test_the_guide_runs_as_printed(program: Path) -> None:
    with program.open("a") as script:
        script.write(RUN_THE_TESTS)

    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["1 Quay Street", "1", "we carry 30 kg at most"]
    assert lines[3] == "shipping.ship_parcel shop we carry 30 kg at most"
    assert [line for line in lines if line.startswith("passed test_")] == lines[4:]
    assert len(lines) == 4 + sum(block.count("async def test_") for block in blocks())


def test_the_guide_has_sound_types(program: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")),
            # The page builds one service step by step, under one name.
            *("--allow-redefinition", str(program)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_no_line_of_a_block_is_too_wide_to_read() -> None:
    wide = [line for block in blocks() for line in block.splitlines() if len(line) > 120]

    assert wide == []
