from datetime import UTC, datetime
from uuid import UUID

from messaging.testing.clock import START, FixedClock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FixedClock()
    first = (clock.ambient.now_ms(), clock.ambient.monotonic_s())

    clock.advance(1_500)

    assert first == (round(START.timestamp() * 1000), 0.0)
    assert (clock.ambient.now_ms(), clock.ambient.monotonic_s()) == (first[0] + 1_500, 1.5)


def test_it_begins_when_told() -> None:
    start = datetime(2030, 5, 17, tzinfo=UTC)

    assert FixedClock(start).now_ms() == round(start.timestamp() * 1000)


def test_ids_are_unique_sorted_and_the_same_in_every_run() -> None:
    first, second = ([clock.ambient.new_id() for _ in range(3)] for clock in (FixedClock(), FixedClock()))

    assert first == second == sorted(set(first))
    assert {(made.version, made.variant) for made in first} == {(7, UUID(int=0x8 << 60).variant)}


def test_chance_is_always_the_same() -> None:
    assert FixedClock().ambient.jitter() == 0.0


def test_calls_come_when_they_are_due_the_earliest_first() -> None:
    clock, called = FixedClock(), list[str]()
    start_ms = clock.now_ms()
    clock.later(2.0, lambda: called.append("second"))
    clock.later(1.0, lambda: called.append("first"))
    clock.later(9.0, lambda: called.append("late"))
    clock.later(0.5, lambda: called.append("never")).cancel()
    assert clock.next_due_ms() == start_ms + 1_000

    clock.advance(2_000)

    assert called == ["first", "second"]
    assert clock.next_due_ms() == start_ms + 9_000


def test_nothing_is_due_without_a_call() -> None:
    assert FixedClock().next_due_ms() is None
