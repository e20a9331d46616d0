from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.security import merkle


def leaves_of(size: int) -> list[bytes]:
    return [sha256(bytes([at])).digest() for at in range(size)]


@pytest.mark.parametrize("size", range(1, 129))
def test_every_leaf_of_every_batch_leads_to_the_root(size: int) -> None:
    leaves = leaves_of(size)

    root, paths = merkle.paths(leaves)

    assert root == merkle.root_of(leaves)
    for at, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        assert len(path) == merkle.path_length(size, at)
        assert merkle.root_of_path(leaf, path, size=size, index=at) == root


def test_a_single_leaf_is_its_root() -> None:
    assert merkle.paths([b"\x07" * 32]) == (b"\x07" * 32, [b""])


def test_an_odd_last_node_moves_up_and_is_not_doubled() -> None:
    three = leaves_of(3)

    assert merkle.root_of(three) != merkle.root_of([*three, three[-1]])
    assert merkle.path_length(3, 2) == 32


def test_leaves_and_nodes_cannot_stand_for_each_other() -> None:
    left, right = leaves_of(2)
    node = sha256(b"\x01" + left + right).digest()

    assert merkle.root_of([left, right]) == node
    assert merkle.root_of([node]) == node
    assert sha256(left + right).digest() != node


@given(size=st.integers(2, 128), where=st.integers(0, 127), other=st.integers(0, 127))
def test_another_index_leads_elsewhere(size: int, where: int, other: int) -> None:
    index, wrong = where % size, other % size
    leaves = leaves_of(size)
    root, paths = merkle.paths(leaves)

    if wrong != index and merkle.path_length(size, wrong) == len(paths[index]):
        assert merkle.root_of_path(leaves[index], paths[index], size=size, index=wrong) != root


@pytest.mark.parametrize("size", [0, 129])
def test_batches_have_bounds(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        merkle.paths(leaves_of(128) * 2 if size else [])
