"""The tree over a batch of leaves: one signature over its root stands for every message (docs/spec.md, "Signature").

Leaves and nodes are hashed under different first bytes, so a node never passes for a leaf. An odd last node moves up as
it is: duplicating it would let two different batches have one root. Pure: bytes in, bytes out.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

__all__ = ["BATCH_MAX", "HASH_BYTES", "path_length", "paths", "root_of", "root_of_path"]

BATCH_MAX: Final = 128
HASH_BYTES: Final = 32
_NODE: Final = b"\x01"


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over 1 to 128 leaves; of a single leaf it is the leaf itself."""
    return _levels(leaves)[-1][0]


def paths(leaves: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the root and, for each leaf, the joined sibling hashes from leaf to root."""
    levels = _levels(leaves)
    # From the root down: a node's path is its sibling, if it has one, and then its parent's path.
    found = [b""]
    for level in reversed(levels[:-1]):
        padded = [*level, b""]
        found = [padded[at ^ 1] + found[at >> 1] for at in range(len(level))]
    return levels[-1][0], found


def path_length(size: int, index: int) -> int:
    """Return how many bytes the path of one leaf has: promoted nodes have no sibling."""
    return len(_turns(size, index)) * HASH_BYTES


def root_of_path(leaf: bytes, path: bytes, *, size: int, index: int) -> bytes:
    """Return the root that a leaf and its path lead to.

    Args:
        leaf: 32 bytes.
        path: Sibling hashes from leaf to root, exactly `path_length(size, index)` bytes.
        size: Leaves in the batch, 1 to 128.
        index: Place of the leaf, below `size`.
    """
    node, at = leaf, 0
    for is_right in _turns(size, index):
        sibling = path[at : at + HASH_BYTES]
        node = sha256(_NODE + sibling + node if is_right else _NODE + node + sibling).digest()
        at += HASH_BYTES
    return node


# At most 128 sizes with at most 128 places each: who sends others has been refused before.
@lru_cache(maxsize=BATCH_MAX * BATCH_MAX)
def _turns(size: int, index: int) -> tuple[bool, ...]:
    # For each node from a leaf to the root that has a sibling: whether it is the right one of the two.
    turns: list[bool] = []
    while size > 1:
        if index ^ 1 < size:
            turns.append(index & 1 == 1)
        index //= 2
        size = (size + 1) // 2
    return tuple(turns)


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    if not 1 <= len(leaves) <= BATCH_MAX:
        raise ValueError(f"a batch has 1 to {BATCH_MAX} messages, not {len(leaves)}")
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        pairs = [
            sha256(_NODE + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)
        ]  # fmt: skip
        if len(level) % 2:
            pairs.append(level[-1])
        levels.append(pairs)
    return levels
