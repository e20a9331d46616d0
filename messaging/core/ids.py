"""`id_of`, `numbered`: a `UUID` from its bytes or its number, for what every message carries several of."""

from typing import Final
from uuid import UUID, SafeUUID

__all__ = ["id_of", "numbered"]

_UNKNOWN: Final = SafeUUID.unknown
# The class refuses assignments; its own constructor goes past that by name, this does so by its slots.
_SET_INT: Final = UUID.__dict__["int"].__set__
_SET_IS_SAFE: Final = UUID.__dict__["is_safe"].__set__


def id_of(raw: bytes) -> UUID:
    """Return what `UUID(bytes=raw)` does, in less than half the time; `raw` has 16 bytes."""
    return numbered(int.from_bytes(raw))


def numbered(number: int) -> UUID:
    """Return what `UUID(int=number)` does, in less than half the time; `number` has 128 bits.

    A `UUID` has two attributes, and its constructor first finds out in which of six forms it is asked for them.
    """
    made = UUID.__new__(UUID)
    _SET_INT(made, number)
    _SET_IS_SAFE(made, _UNKNOWN)
    return made
