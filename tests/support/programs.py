"""Stand-ins for programs of the operating system: small scripts in a folder that becomes the PATH."""

from pathlib import Path

__all__ = ["calls_of", "write_program"]


def write_program(folder: Path, name: str, *, body: str = "") -> Path:
    """Write a shell script that notes its arguments, one line per call, and then runs `body`."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$*" >> "{folder}/{name}.calls"\n{body}\n')
    program.chmod(0o755)
    return program


def calls_of(folder: Path, name: str) -> list[str]:
    """Return the arguments of each call of a stand-in, in order."""
    calls = folder / f"{name}.calls"
    return calls.read_text().splitlines() if calls.exists() else []
