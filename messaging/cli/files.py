"""Bytes in and out: files, and `-` for stdin and stdout. Always binary: sealed bytes are no text."""

import sys
from pathlib import Path
from typing import Final

from messaging.cli.exits import UsageError
from messaging.security.private_files import write_file

__all__ = ["read_input", "write_output"]

_MOST_BYTES: Final = 64 * 1024 * 1024
_STREAM: Final = Path("-")
PUBLIC_MODE: Final = 0o644


def read_input(path: Path) -> bytes:
    """Return the bytes of a file, or of stdin for `-`.

    Raises:
        UsageError: It holds more than 64 MiB.
    """
    if path == _STREAM:
        raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
    else:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path} holds more than {_MOST_BYTES} bytes: it is none of this program's files")
    return raw


def write_output(path: Path | None, content: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Write bytes to a file, which must not be there yet, or to stdout for `-` or nothing.

    Args:
        path: Where.
        content: What.
        mode: Permissions of a new file.
    """
    if path is None or path == _STREAM:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_file(path, content, mode=mode)
