"""A program on a pseudo-terminal, used as a person uses it: read, type, wait."""

import os
import select
import subprocess
import termios
import time
from typing import Final

from tests.support.installation import Installation, until

__all__ = ["Terminal"]

_PATIENCE_S: Final = 90.0


class Terminal:
    """A program of an installation on a pseudo-terminal.

    Args:
        installation: Where it runs.
        arguments: Its command line.
        changes: Settings that differ from the installation's.
    """

    def __init__(self, installation: Installation, *arguments: str, changes: dict[str, str] | None = None) -> None:
        self._parent, child = os.openpty()
        self.process: subprocess.Popen[str] = installation.spawn(
            *arguments, stdin=child, stdout=child, stderr=child, start_new_session=True, changes=changes
        )
        os.close(child)
        self.said = ""

    def wait_for(self, words: str) -> None:
        """Read until the words were said."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while words not in self.said and self._read():
            assert time.monotonic() < deadline_s, self.said
        assert words in self.said, self.said

    def wait_for_secret(self) -> None:
        """Wait until typing is not shown; what is typed before that is thrown away."""
        until(lambda: not termios.tcgetattr(self._parent)[3] & termios.ECHO, what="a secret is asked for")

    def type(self, text: str) -> None:
        """Type, as the person at the keyboard."""
        os.write(self._parent, text.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self._read():
            pass
        os.close(self._parent)
        return self.process.wait(timeout=_PATIENCE_S)

    def _read(self) -> bool:
        if not select.select([self._parent], [], [], _PATIENCE_S)[0]:
            return False
        try:
            read = os.read(self._parent, 65_536).decode()
        except OSError:
            # Linux says so when the other side is closed.
            return False
        self.said += read
        return bool(read)
