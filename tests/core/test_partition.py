"""Slots and partitions: the same for every sender in every language, and for ever."""

import hashlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.partition import (
    PARTITIONS_MAX,
    SLOTS,
    check_partitions,
    partition_of,
    slot_of,
    slot_patterns,
    slot_words,
)
from messaging.errors import ConfigurationError
from messaging.transports.memory.routing import topic_matches

COUNTS = [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("", 3239),
        ("customer-1", 1510),
        ("Zoë", 2849),
        (42, 2109),
        ("42", 2109),
        (-1, 2393),
        (b"\x00\xff", 2018),
        (UUID("12345678-1234-5678-1234-567812345678"), 1484),
        ("12345678-1234-5678-1234-567812345678", 1484),
    ],
)
def test_slots_are_those_that_were_published(key: object, slot: int) -> None:
    assert slot_of(key) == slot


def test_slot_is_the_first_12_bits_of_the_documented_hash() -> None:
    bits = f"{int.from_bytes(hashlib.sha256(b'messaging/1/slot' + bytes(1) + b'customer-1').digest()):0256b}"

    assert slot_of("customer-1") == int(bits[:12], 2)


@pytest.mark.parametrize("key", [None, True, 1.5, ("a", "b"), object()])
def test_key_that_nobody_could_write_the_same_way_is_refused(key: object) -> None:
    with pytest.raises(ConfigurationError, match=r"a key is a str, int, UUID or bytes, not \w+"):
        slot_of(key)


@pytest.mark.parametrize("count", COUNTS)
def test_powers_of_two_are_possible(count: int) -> None:
    assert check_partitions(count) == count


@pytest.mark.parametrize("count", [0, -1, 3, 63, PARTITIONS_MAX * 2, True, 2.0])
def test_other_numbers_of_partitions_are_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="use 1, 2, 4, 8, 16, 32 or 64"):
        check_partitions(count)


def test_slot_is_written_bit_by_bit() -> None:
    assert slot_words(0b0110_0000_0001) == "0.1.1.0.0.0.0.0.0.0.0.1"


@pytest.mark.parametrize("count", COUNTS)
def test_every_slot_fits_the_patterns_of_its_partition_alone(count: int) -> None:
    for slot in range(0, SLOTS, 37):
        fitting = [
            partition
            for partition in range(count)
            if any(topic_matches(pattern, slot_words(slot)) for pattern in slot_patterns(partition, count))
        ]

        assert fitting == [partition_of(slot, count)]


@pytest.mark.parametrize("count", COUNTS)
def test_patterns_fit_no_name_of_a_message(count: int) -> None:
    words = ".".join("abcdefghijkl")

    assert not any(topic_matches(pattern, words) for number in range(count) for pattern in slot_patterns(number, count))


@given(slot=st.integers(0, SLOTS - 1), halving=st.integers(0, 5))
def test_doubling_splits_a_partition_in_two(slot: int, halving: int) -> None:
    before, after = partition_of(slot, 1 << halving), partition_of(slot, 2 << halving)

    assert after // 2 == before
