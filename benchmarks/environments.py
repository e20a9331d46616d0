"""Environments of the peers, each of its own: what one framework pins must not decide about another's versions.

    python -m benchmarks.environments [--folder .bench]

`benchmarks/peers/<name>.txt` holds names and exact versions. What is there already is left alone; a peer that cannot be
installed is named with the reason, and the others go on.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "PEERS", "install", "interpreter_of", "main"]

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / ".bench"
PINS: Final = Path(__file__).parent / "peers"
PEERS: Final = tuple(sorted(path.stem for path in PINS.glob("*.txt")))
INSTALL_TIMEOUT_S: Final = 600.0
_MARK: Final = ".installed"


def interpreter_of(name: str, folder: Path = FOLDER) -> Path:
    """Return the Python of a peer's environment, there or not."""
    return folder / name / "bin" / "python"


def install(name: str, folder: Path = FOLDER) -> str | None:
    """Make a peer's environment unless it is there; return why it failed, or None.

    Args:
        name: As its file of versions is called.
        folder: Of all environments.
    """
    pins = PINS / f"{name}.txt"
    home = folder / name
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    mark = home / _MARK
    if mark.exists() and mark.read_text() == wanted:
        return None
    pip = [str(interpreter_of(name, folder)), "-m", "pip", "install", "--quiet", "--no-input"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [*pip, "--disable-pip-version-check", "--requirement", str(pins)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"installing took longer than {INSTALL_TIMEOUT_S:g} s"
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            return (errors or ["pip failed"])[-1]
    mark.write_text(wanted)
    return None


def main() -> None:
    """Make all environments that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", nargs="*", default=list(PEERS), choices=PEERS)
    options = parser.parse_args()
    for name in options.only:
        reason = install(name, options.folder)
        print(f"{name}: {'ready' if reason is None else reason}")  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
