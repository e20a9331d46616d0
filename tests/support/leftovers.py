"""Finds processes that a program left behind, by the folder that they work with."""

from pathlib import Path

__all__ = ["processes_of"]


def processes_of(folder: Path) -> dict[int, str]:
    """Return the processes whose command line, environment or current folder names this folder, by id."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
            place = str((process / "cwd").readlink())
        # It ended meanwhile, or belongs to somebody else and is none of ours.
        except OSError:
            continue
        if str(folder).encode() in command + environment or place.startswith(str(folder)):
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
