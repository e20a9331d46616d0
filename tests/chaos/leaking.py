"""Leaks on purpose: what a worker of the soak's negative control never lets go, a little for each message.

`CHAOS_LEAK=memory,tasks` chooses. Small on purpose: a soak that overlooks these proves nothing.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["EVERY", "Leak", "Leaks"]

MEMORY_BYTES: Final = 4_096


class Leak(StrEnum):
    """What is kept."""

    MEMORY = "memory"
    TASKS = "tasks"
    DESCRIPTORS = "descriptors"
    THREADS = "threads"


# Memory with each message, the others with one of so many.
EVERY: Final[Mapping[Leak, int]] = {Leak.MEMORY: 1, Leak.TASKS: 50, Leak.DESCRIPTORS: 50, Leak.THREADS: 50}


class Leaks:
    """Keeps a little more with each message.

    Args:
        kinds: What; nothing is usual.
    """

    def __init__(self, kinds: frozenset[Leak]) -> None:
        self._kinds = kinds
        self._messages = 0
        self._kept: list[object] = []

    @classmethod
    def parse(cls, text: str) -> "Leaks":
        """Read names with commas between."""
        return cls(frozenset(Leak(name) for name in text.split(",") if name))

    def leak(self) -> None:
        """One message more."""
        self._messages += 1
        self._kept += [self._one(kind) for kind in self._kinds if self._messages % EVERY[kind] == 0]

    def _one(self, kind: Leak) -> object:
        match kind:
            case Leak.MEMORY:
                return os.urandom(MEMORY_BYTES), object()
            case Leak.TASKS:
                return asyncio.create_task(asyncio.Event().wait())
            case Leak.DESCRIPTORS:
                return Path(os.devnull).open("rb")
            case Leak.THREADS:
                thread = threading.Thread(target=threading.Event().wait, daemon=True)
                thread.start()
                return thread
