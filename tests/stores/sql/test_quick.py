"""What proves quick may leave the driver's thread; what waits, computes or is large never does."""

import sqlite3
from typing import Any

import pytest

from messaging.stores.sql.quick import Pace

INSERT = "INSERT INTO things (id, word) VALUES (?, ?)"
VALUES = (1, "a")


class Work:
    """A statement that takes as long as it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.takes_s = 0.0

    def __call__(self, connection: sqlite3.Connection, operation: str, values: Any) -> str:
        self.now_s += self.takes_s
        return "done"

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def work() -> Work:
    return Work()


def run(pace: Pace, work: Work, *, takes_s: float, times: int = 1) -> None:
    work.takes_s = takes_s
    for _ in range(times):
        assert pace.is_timed(INSERT)
        assert pace.timed(work.clock, work, sqlite3.Connection(":memory:"), INSERT, VALUES) == "done"


def test_a_row_that_went_in_quickly_once_is_quick(work: Work) -> None:
    pace = Pace()

    before = pace.is_timed(INSERT) and pace.is_quick(INSERT, VALUES)
    run(pace, work, takes_s=0.0001)

    assert not before
    assert pace.is_quick(INSERT, VALUES)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "UPDATE things SET word = ? WHERE id = ?",
        "DELETE FROM things WHERE id = ?",
        "INSERT INTO things (id, word) SELECT id, word FROM others WHERE id = ?",
        "INSERT INTO things (id, word) VALUES (?, (SELECT max(word) FROM others))",
        "INSERT INTO things (id, word) VALUES (?, slow(?))",
        "INSERT INTO things (id, word) VALUES (?, ?), (?, ?)",
        "INSERT INTO things (id, word) VALUES (?, ?) RETURNING slow(id)",
        "INSERT INTO things (id, word) VALUES (?, ?); DROP TABLE things",
        "WITH RECURSIVE endless AS (SELECT 1) INSERT INTO things (id) VALUES (?)",
    ],
)
def test_what_is_not_one_row_of_given_values_stays_in_the_thread(statement: str) -> None:
    pace = Pace()

    assert not pace.is_timed(statement)
    assert not pace.is_quick(statement, VALUES)


@pytest.mark.parametrize(
    "statement",
    [
        'INSERT INTO "order" (id, "from") VALUES (?, ?)',
        "INSERT INTO main.things (id, word) VALUES (?, ?)",
        "INSERT INTO things (id, word) VALUES (?, ?) RETURNING id",
    ],
)
def test_names_may_be_quoted_and_columns_returned(statement: str) -> None:
    assert Pace().is_timed(statement)


@pytest.mark.parametrize("large", ["x" * 70_000, b"x" * 70_000])
def test_large_values_stay_in_the_thread(work: Work, large: str | bytes) -> None:
    pace = Pace()
    run(pace, work, takes_s=0.0)

    assert not pace.is_quick(INSERT, (1, large))
    assert pace.is_quick(INSERT, VALUES)


def test_what_is_slow_at_first_stays_in_the_thread(work: Work) -> None:
    pace = Pace()

    run(pace, work, takes_s=0.02)
    run(pace, work, takes_s=0.0, times=99)
    nearly = pace.is_quick(INSERT, VALUES)
    run(pace, work, takes_s=0.0)

    assert not nearly
    assert pace.is_quick(INSERT, VALUES)


def test_what_was_slow_once_is_given_another_chance_and_twice_none(work: Work) -> None:
    pace = Pace()
    run(pace, work, takes_s=0.0)

    run(pace, work, takes_s=0.02)
    once = pace.is_quick(INSERT, VALUES)
    run(pace, work, takes_s=0.02)

    assert once
    assert not pace.is_quick(INSERT, VALUES)


def test_slow_ones_that_are_far_between_are_forgiven(work: Work) -> None:
    pace = Pace()
    run(pace, work, takes_s=0.0)

    for _ in range(3):
        run(pace, work, takes_s=0.02)
        run(pace, work, takes_s=0.0)

    assert pace.is_quick(INSERT, VALUES)


def test_a_statement_that_fails_is_timed_as_well(work: Work) -> None:
    pace = Pace()

    def failing(connection: sqlite3.Connection, operation: str, values: Any) -> None:
        raise sqlite3.IntegrityError

    assert pace.is_timed(INSERT)
    with pytest.raises(sqlite3.IntegrityError):
        pace.timed(work.clock, failing, sqlite3.Connection(":memory:"), INSERT, VALUES)

    assert pace.is_quick(INSERT, VALUES)


def test_statements_with_values_in_their_text_do_not_pile_up(work: Work) -> None:
    pace = Pace()
    run(pace, work, takes_s=0.0)

    for number in range(300):
        pace.is_timed(f"PRAGMA cache_size = {number}")

    # Forgotten with all others, so it proves itself again.
    assert not pace.is_quick(INSERT, VALUES)
