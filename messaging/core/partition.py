r"""From a key to its slot, and from the slot to a partition: what makes messages of one key come one after the other.

    key ── SHA-256 ──► slot, one of 4 096 ── first bits ──► partition, one of 1, 2, 4 … 64

The sender computes the slot, which never changes, and says it in the signed header and in the routing key. How many
partitions there are only the receiving service knows: each of its queues is bound to the slots that begin with its
bits. So neither a sender nor a message needs to know that number (docs/topology.md, "Partitions").

The hash is part of the wire format and the same in every language:

    slot = the first 12 bits of SHA-256("messaging/1/slot\0" + key)

where a text is taken as UTF-8, a UUID in its usual form with hyphens and small letters, an integer in decimal.
"""

import hashlib
from typing import Final
from uuid import UUID

from messaging.errors import ConfigurationError

__all__ = ["PARTITIONS_MAX", "SLOTS", "check_partitions", "partition_of", "slot_of", "slot_patterns", "slot_words"]

SLOT_BITS: Final = 12
SLOTS: Final = 1 << SLOT_BITS
# Each partition is a queue of its own: enough for as many replicas, and a broker feels more than this.
PARTITIONS_MAX: Final = 64
_LABEL: Final = b"messaging/1/slot\0"


def slot_of(key: object) -> int:
    """Return the slot of a key, 0 to 4 095.

    Raises:
        ConfigurationError: the key is no text, integer, UUID or bytes: of other types nobody could say how they are
            written.
    """
    digest = hashlib.sha256(_LABEL + _key_bytes(key)).digest()
    return int.from_bytes(digest[:2]) >> (16 - SLOT_BITS)


def check_partitions(count: int) -> int:
    """Return the number of partitions if it is possible.

    Raises:
        ConfigurationError: it is no power of two from 1 to 64.
    """
    if type(count) is not int or not 1 <= count <= PARTITIONS_MAX or count & (count - 1):
        raise ConfigurationError(
            f"partitions={count!r}: use 1, 2, 4, 8, 16, 32 or {PARTITIONS_MAX}, at least as many as replicas will run"
        )
    return count


def partition_of(slot: int, partitions: int) -> int:
    """Return the partition of a slot, from 0: its first bits."""
    return slot * partitions // SLOTS


def slot_words(slot: int) -> str:
    """Return how a slot stands in a routing key: its bits, the first one first, such as `0.1.1.0.1.0.0.1.1.1.0.1`."""
    return ".".join(f"{slot:0{SLOT_BITS}b}")


def slot_patterns(partition: int, partitions: int) -> tuple[str, ...]:
    """Return what a topic exchange must match to put the slots of one partition through.

    At least one bit is spelled out, so that no name of a message can ever fit: its words begin with a letter.
    """
    bits = (partitions - 1).bit_length()
    openings = (f"{partition:0{bits}b}",) if bits else ("0", "1")
    return tuple(".".join([*opening, *"*" * (SLOT_BITS - len(opening))]) for opening in openings)


def _key_bytes(key: object) -> bytes:
    if isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, UUID):
        return str(key).encode()
    # True and 1 would be one key, though nobody meant that.
    if isinstance(key, int) and not isinstance(key, bool):
        return b"%d" % key
    raise ConfigurationError(f"a key is a str, int, UUID or bytes, not {type(key).__name__}: write it as one of these")
