from messaging.runtime.rate import RateLimit
from tests.support.realm import Clock


def test_so_many_a_second_are_admitted() -> None:
    clock = Clock()
    limit = RateLimit(per_s=3, monotonic_s=lambda: clock.monotonic_s)

    assert [limit.admit() for _ in range(5)] == [0, 0, 0, None, None]


def test_the_next_second_tells_how_many_were_left_out() -> None:
    clock = Clock()
    limit = RateLimit(per_s=2, monotonic_s=lambda: clock.monotonic_s)
    for _ in range(5):
        limit.admit()
    clock.advance(1.0)

    assert [limit.admit() for _ in range(3)] == [3, 0, None]


def test_a_quiet_time_saves_nothing_up() -> None:
    clock = Clock()
    limit = RateLimit(per_s=2, monotonic_s=lambda: clock.monotonic_s)
    clock.advance(100.0)

    assert [limit.admit() for _ in range(4)] == [0, 0, None, None]
