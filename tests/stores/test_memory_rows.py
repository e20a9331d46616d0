"""Rows that are found, that go in their order, and whose tables stay as small as they are."""

import sys
from uuid import UUID

from messaging.core.inbox import RowState
from messaging.stores.base import InboxKey
from messaging.stores.memory_rows import Place, Row, Rows, place_of

LEASE_S = 60.0
KEPT_S = 3_600.0


class Rig:
    """Rows, and the shortest words for what is done with them."""

    def __init__(self, most: int) -> None:
        self.rows = Rows(most=most)
        self.now_s = 0.0
        self._token = 0

    def lease(self, number: int) -> Row:
        self._token += 1
        where = place(number)
        row = Row(self.rows.table(where), where, b"leaf", 0, self.now_s + LEASE_S, self._token, RowState.ABSENT)
        self.rows.lease(row, self.now_s)
        return row

    def end(self, row: Row) -> None:
        self.rows.end(row, RowState.DONE, until_s=self.now_s + KEPT_S)

    def handle(self, number: int) -> Row:
        row = self.lease(number)
        self.end(row)
        return row

    def found(self, *numbers: int) -> list[int]:
        return [number for number in numbers if self.rows.find(place(number)) is not None]


def place(number: int) -> Place:
    return place_of(InboxKey("orders", "users", UUID(int=number)))


def test_a_place_tells_services_senders_and_ids_apart() -> None:
    keys = [
        InboxKey("a", "bc", UUID(int=1)),
        InboxKey("ab", "c", UUID(int=1)),
        InboxKey("a", "bc", UUID(int=2)),
        InboxKey("a", "bc", UUID(int=1 << 127)),
    ]

    assert len({place_of(key) for key in keys}) == len(keys)


def test_a_row_is_found_until_it_is_forgotten() -> None:
    rig = Rig(most=1_000)
    leased, ended = rig.lease(1), rig.handle(2)
    before = rig.found(1, 2, 3), len(rig.rows)

    rig.rows.forget(leased)
    rig.rows.forget(ended)

    assert before == ([1, 2], 2)
    assert (rig.found(1, 2), len(rig.rows)) == ([], 0)
    assert rig.rows.held(leased.token) is None
    assert leased.state is RowState.ABSENT


def test_a_lease_is_held_until_it_ends() -> None:
    rig = Rig(most=10)
    row = rig.lease(1)
    during = rig.rows.held(row.token)
    rig.end(row)

    assert during is row
    assert rig.rows.held(row.token) is None
    assert rig.rows.held(None) is None


def test_a_row_that_ended_keeps_its_place_in_the_line() -> None:
    rig = Rig(most=2)
    first, _ = rig.handle(1), rig.handle(2)
    rig.end(first)

    rig.handle(3)

    assert rig.found(1, 2, 3) == [2, 3]


def test_the_oldest_that_ended_goes_first_and_a_lease_not_at_all() -> None:
    rig = Rig(most=4)
    rig.lease(1)
    for number in range(2, 10):
        rig.handle(number)

    assert rig.found(*range(1, 10)) == [1, 7, 8, 9]


def test_what_left_the_line_is_passed_over_and_does_not_count() -> None:
    rig = Rig(most=4)
    rows = [rig.handle(number) for number in range(4)]
    for number in (0, 2):
        rig.rows.forget(rows[number])

    rig.handle(4)
    rig.handle(5)
    full = rig.found(*range(7))
    rig.handle(6)

    assert full == [1, 3, 4, 5]
    assert rig.found(*range(7)) == [3, 4, 5, 6]


def test_a_row_that_comes_and_goes_for_ever_does_not_make_the_line_longer() -> None:
    rig = Rig(most=1_000)
    kept = rig.handle(0)
    for _ in range(5_000):
        rig.rows.forget(rig.handle(1))

    assert len(rig.rows._ended) < 200
    assert rig.rows.find(place(0)) is kept
    for number in range(2, 1_002):
        rig.handle(number)
    assert rig.found(0, 2, 1_001) == [2, 1_001]


def test_a_lease_whose_time_is_over_goes_although_there_is_room() -> None:
    rig = Rig(most=1_000)
    for number in range(3):
        rig.lease(number)
    rig.now_s = LEASE_S

    rig.lease(7)

    assert rig.found(*range(8)) == [7]


def test_leases_that_are_over_are_found_behind_one_that_is_not() -> None:
    rig = Rig(most=1_000)
    rig.now_s = 10.0
    slow = rig.lease(0)
    rig.now_s = 0.0
    for number in range(1, 4):
        rig.lease(number)
    assert slow.until_s > LEASE_S
    for second in range(3):
        rig.now_s = LEASE_S + second
        rig.lease(10 + second)

    assert rig.found(*range(13)) == [0, 10, 11, 12]


def test_kept_answers_are_counted_until_they_go() -> None:
    rig = Rig(most=1)
    rig.rows.keep(rig.handle(1), b"12345")
    during = rig.rows.reply_bytes

    rig.handle(2)

    assert (during, rig.rows.reply_bytes) == (5, 0)


def test_tables_do_not_grow_however_much_comes_and_goes() -> None:
    rig = Rig(most=3_000)

    def table_bytes() -> tuple[int, int]:
        sizes = [sys.getsizeof(table) for table in rig.rows._tables]
        return sum(sizes), max(sizes)

    for number in range(6_000):
        rig.handle(number)
    whole, largest = table_bytes()
    beyond = []
    for number in range(6_000, 30_000):
        rig.handle(number)
        if number % 1_000 == 0:
            beyond.append(table_bytes())

    assert len(rig.rows) == 3_000
    # One dict for all rows takes three times its size while it is made anew; a small one is nothing beside the rest.
    assert largest * 4 < whole
    assert max(size for size, _ in beyond) <= whole * 1.1
