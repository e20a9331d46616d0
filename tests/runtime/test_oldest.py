"""The few oldest of many."""

from hypothesis import given
from hypothesis import strategies as st

from messaging.runtime.oldest import Oldest


def kept(ages: list[int], count: int | None) -> list[tuple[int, int]]:
    oldest = Oldest[tuple[int, int]](count, age_of=lambda item: item[0])
    for place, age in enumerate(ages):
        oldest.offer((age, place))
    return oldest.first_to_last()


def test_the_oldest_are_kept_and_come_first() -> None:
    assert kept([5, 1, 9, 3], 2) == [(1, 1), (3, 3)]


def test_what_is_equally_old_stays_in_order() -> None:
    assert kept([4, 4, 4], 2) == [(4, 0), (4, 1)]


@given(st.lists(st.integers(0, 9)), st.none() | st.integers(0, 12))
def test_it_is_the_beginning_of_all_that_was_offered_sorted(ages: list[int], count: int | None) -> None:
    everything = sorted((age, place) for place, age in enumerate(ages))

    assert kept(ages, count) == everything[:count]
