"""The real `Ambient`: the only reader of clock, ids and chance (keys and salts apart, which `security` takes itself).

Ids are UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits of the operating system. They
sort by time across processes to the millisecond; within one millisecond their order means nothing.
"""

import os
import random
import time
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from messaging.core.ambient import Ambient
from messaging.core.ids import numbered

__all__ = ["real_ambient"]

# One system call per 256 ids instead of one per id.
BLOCK_IDS: Final = 256
RANDOM_BYTES: Final = 10

_RANDOM_BITS: Final = RANDOM_BYTES * 8
_VERSION: Final = 7 << 76
_VARIANT: Final = 0b10 << 62
# What of 80 random bits stays random: 12 bits beside the version, 62 beside the variant.
_RANDOM_MASK: Final = (0xFFF << 64) | ((1 << 62) - 1)


def real_ambient() -> Ambient:
    """Return the ambient of this machine: its clock, and chance from its operating system."""
    # SystemRandom and not the module's generator: forked workers would inherit its state and back off in step, which
    # is what jitter is there to prevent.
    return Ambient(
        now_ms=_now_ms,
        monotonic_s=time.monotonic,
        new_id=_Ids().new,
        jitter=random.SystemRandom().random,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Ids:
    """Makes ids from blocks of randomness.

    A fork never repeats an id: the child sees another process id and draws a block of its own. Neither do two threads:
    taking a chunk is one step of the interpreter, and of two blocks drawn at once only one is used.
    """

    __slots__ = ("_chunks", "_pid")

    def __init__(self) -> None:
        self._pid = 0
        self._chunks: Iterator[bytes] = iter(())

    def new(self) -> UUID:
        """Return a fresh id."""
        chunk = next(self._chunks, None) if self._pid == os.getpid() else None
        if chunk is None:
            chunk = next(self._drawn())
        value = (int.from_bytes(chunk) & _RANDOM_MASK) | _VERSION | _VARIANT | (_now_ms() << _RANDOM_BITS)
        # 48 bits of milliseconds last until the year 10889.
        return numbered(value)

    def _drawn(self) -> Iterator[bytes]:
        block = os.urandom(BLOCK_IDS * RANDOM_BYTES)
        chunks = iter([block[start : start + RANDOM_BYTES] for start in range(0, len(block), RANDOM_BYTES)])
        self._chunks, self._pid = chunks, os.getpid()
        return chunks
