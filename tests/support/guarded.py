"""Programs of tests that end with the tests, however those end: `subprocess.Popen(guarded(program, argument, ...))`.

Linux ends the program when its parent dies, by SIGKILL: the tests may have been killed themselves, and a stopped
process hears nothing else. A program asks for that itself and only then becomes what it shall be, under the same id; no
code of ours runs between fork and exec. Elsewhere than on Linux it just becomes it.

Ctrl-C reaches it, whoever runs the tests: a shell that starts something in the background lets it ignore that, and what
is ignored stays so in all programs that come of it.

The kernel watches the thread that started the program, so that one must live as long as the program may.
"""

import ctypes
import os
import signal
import sys
from typing import Final

__all__ = ["guarded"]

_PR_SET_PDEATHSIG: Final = 1


def guarded(program: str, *arguments: str) -> list[str]:
    """Return the command line of a program that does not outlive this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), program, *arguments]


def _main(parent: int, command: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It died before the kernel was asked to tell.
            return
    os.execvp(command[0], command)  # noqa: S606 - no shell, which is the point


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
