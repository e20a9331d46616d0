"""The tree over a batch of leaves: one signature over its root stands for every message (docs/spec.md, "Signature").

Leaves and nodes are hashed under different first bytes, so a node never passes for a leaf. An odd last node moves up as
it is: duplicating it would let two different batches have one root. Pure: bytes in, bytes out.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

__all__ = ["BATCH_MAX", "HASH_BYTES", "path_length", "paths", "root_of", "root_of_path"]

BATCH_MAX: Final = 128
HASH_BYTES: Final = 32


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over 1 to 128 leaves; of a single leaf it is the leaf itself."""
    return _levels(leaves)[-1][0]


def paths(leaves: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the root and, for each leaf, the joined sibling hashes from leaf to root."""
    levels = _levels(leaves)
    found: list[bytes] = []
    for leaf_index in range(len(leaves)):
        index, siblings = leaf_index, []
        for level in levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index //= 2
        found.append(b"".join(siblings))
    return levels[-1][0], found


def path_length(size: int, index: int) -> int:
    """Return how many bytes the path of one leaf has: promoted nodes have no sibling."""
    count = 0
    while size > 1:
        if index ^ 1 < size:
            count += 1
        index //= 2
        size = (size + 1) // 2
    return count * HASH_BYTES


def root_of_path(leaf: bytes, path: bytes, *, size: int, index: int) -> bytes:
    """Return the root that a leaf and its path lead to.

    Args:
        leaf: 32 bytes.
        path: Sibling hashes from leaf to root, exactly `path_length(size, index)` bytes.
        size: Leaves in the batch, 1 to 128.
        index: Place of the leaf, below `size`.
    """
    node, at = leaf, 0
    while size > 1:
        if index ^ 1 < size:
            sibling = path[at : at + HASH_BYTES]
            node = _node(sibling, node) if index & 1 else _node(node, sibling)
            at += HASH_BYTES
        index //= 2
        size = (size + 1) // 2
    return node


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    if not 1 <= len(leaves) <= BATCH_MAX:
        raise ValueError(f"a batch has 1 to {BATCH_MAX} messages, not {len(leaves)}")
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        levels.append(pairs)
    return levels


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
