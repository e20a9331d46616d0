"""What a process holds while it has nothing to do: it says so itself on SIGUSR1, the kernel says the rest.

In the process `answering` writes a JSON line for each signal, after a full garbage collection. Outside, `held` sends
the signal, waits for the line, and reads what the kernel counts.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, Final

from tests.chaos.programs import Program

__all__ = ["FOLDER", "answering", "held", "of_the_kernel"]

FOLDER: Final = "CHAOS_REST_FOLDER"
_POLL_S: Final = 0.1


async def answering(rest: Callable[[], Awaitable[None]] | None = None) -> None:
    """Answer SIGUSR1 for as long as this process lives, if the environment names a folder for answers.

    Args:
        rest: Comes to rest first; default: whoever asks has seen to that.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        if rest is not None:
            await rest()
        _tell(_file(Path(folder), os.getpid()))


async def held(program: Program, folder: Path, *, timeout_s: float) -> dict[str, float]:
    """Ask a process for what it holds.

    Args:
        program: It answers (`answering`).
        folder: Of the answers.
        timeout_s: How long it may take to come to rest.

    Raises:
        TimeoutError: it did not.
    """
    file = _file(folder, program.pid)
    before = len(_lines(file))
    program.signal(signal.SIGUSR1)
    async with asyncio.timeout(timeout_s):
        while len(lines := _lines(file)) == before:
            assert program.is_running, f"{program.pid} ended: {program.last_words()}"
            await asyncio.sleep(_POLL_S)
    return {**json.loads(lines[-1]), **of_the_kernel(program.pid)}


def _tell(file: Path) -> None:
    gc.collect()
    line = {"tasks": len(asyncio.all_tasks()), "blocks": sys.getallocatedblocks(), "malloc MiB": _lent_mib()}
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


def _lent_mib() -> float:
    """Return what C's allocator has lent out and not got back; 0 where it does not tell.

    Python's own blocks are not in it, everything larger than 512 bytes and everything of libraries is. The memory of a
    process also holds what was lent once and is free again: it rises with the busiest moment so far.
    """
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0.0
    ask.restype = _Lent
    found = ask()
    return (int(found.uordblks) + int(found.hblkhd)) / 2**20


class _Lent(ctypes.Structure):
    # glibc's malloc.h, struct mallinfo2: uordblks is lent from the heap, hblkhd lies in mappings of its own.
    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def of_the_kernel(pid: int) -> dict[str, float]:
    folder = Path("/proc") / str(pid)
    pages = int((folder / "statm").read_text().split()[1])
    return {
        "RSS MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "descriptors": float(len(list((folder / "fd").iterdir()))),
        "threads": float(len(list((folder / "task").iterdir()))),
    }


def _file(folder: Path, pid: int) -> Path:
    return folder / f"rest-{pid}.jsonl"


def _lines(file: Path) -> list[str]:
    # What has no end yet is being written.
    return file.read_text().splitlines() if file.exists() and file.read_text().endswith("\n") else []
