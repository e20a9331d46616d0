"""Where passphrases come from: a prompt, the first line of a file, or a file descriptor. Never an argument.

An argument would stand in the list of processes and in the shell's history.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.cli.exits import UsageError

__all__ = ["PassphraseFd", "PassphraseFile", "known_passphrase", "new_passphrase"]

_MOST_BYTES: Final = 4_096

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Take the passphrase from this file's first line.", show_default=False),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd", metavar="N", min=0, help="Read the passphrase from this file descriptor.", show_default=False
    ),
]


def new_passphrase(whose: str, *, file: Path | None, fd: int | None, ask: bool) -> bytes | None:
    """Return the passphrase that is to seal a file; None when none was given and nobody is to be asked.

    Args:
        whose: What it is for, such as `ops:alice`.
        file: File whose first line it is.
        fd: File descriptor to read it from.
        ask: Whether it is asked for when it comes from nowhere else.

    Raises:
        UsageError: It is empty, comes from two places, or nobody is at the terminal to be asked.
    """
    given = _given(file, fd)
    if given is not None or not ask:
        return given
    _require_terminal(f"the key file of {whose} needs a passphrase")
    typed: str = typer.prompt(f"New passphrase of {whose}", hide_input=True, confirmation_prompt=True, err=True)
    return typed.encode()


def known_passphrase(whose: str, *, file: Path | None, fd: int | None) -> bytes:
    """Return the passphrase that opens a file.

    Raises:
        UsageError: It is empty, comes from two places, or nobody is at the terminal to be asked.
    """
    given = _given(file, fd)
    if given is not None:
        return given
    _require_terminal(f"the key file of {whose} is sealed with a passphrase")
    typed: str = typer.prompt(f"Passphrase of {whose}", hide_input=True, err=True)
    return typed.encode()


def _given(file: Path | None, fd: int | None) -> bytes | None:
    if file is not None and fd is not None:
        raise UsageError("--passphrase-file and --passphrase-fd both: say one of them")
    if file is not None:
        return _first_line(file.read_bytes(), str(file))
    if fd is not None:
        try:
            return _first_line(os.read(fd, _MOST_BYTES), f"file descriptor {fd}")
        except OSError as error:
            raise UsageError(f"--passphrase-fd {fd}: {error.strerror}; open it, as in 3<words") from None
    return None


def _first_line(raw: bytes, where: str) -> bytes:
    lines = raw.splitlines()
    if not lines or not lines[0]:
        raise UsageError(f"{where}: its first line is the passphrase, and it is empty")
    return lines[0]


def _require_terminal(why: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{why}: say --passphrase-file or --passphrase-fd, nobody is at the terminal to be asked")
