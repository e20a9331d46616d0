"""`id_of`, `numbered`: a `UUID` from its bytes or its number, for what every message carries several of."""

from typing import Final
from uuid import UUID, SafeUUID

__all__ = ["id_of", "numbered"]

_UNKNOWN: Final = SafeUUID.unknown


def id_of(raw: bytes) -> UUID:
    """Return what `UUID(bytes=raw)` does, in less than half the time; `raw` has 16 bytes."""
    return numbered(int.from_bytes(raw))


def numbered(number: int) -> UUID:
    """Return what `UUID(int=number)` does, in less than half the time; `number` has 128 bits.

    A `UUID` has two attributes, and its constructor first finds out in which of six forms it is asked for them.
    """
    made = UUID.__new__(UUID)
    # The class refuses assignments; its own constructor sets them in the same way.
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", _UNKNOWN)
    return made
