import pytest

from messaging.transports.amqp.backoff import reconnect_delay_s


def test_delay_grows_from_a_fifth_of_a_second() -> None:
    delays = [reconnect_delay_s(attempt, down_s=0.0, jitter=1.0) for attempt in range(1, 5)]

    assert delays == [0.2, 0.4, 0.8, 1.6]


@pytest.mark.parametrize(("down_s", "cap_s"), [(0.0, 5.0), (59.9, 5.0), (60.0, 15.0), (86_400.0, 15.0)])
def test_delay_is_capped_low_in_the_first_minute_and_higher_later(down_s: float, cap_s: float) -> None:
    assert reconnect_delay_s(1_000_000, down_s=down_s, jitter=1.0) == cap_s


def test_jitter_is_full() -> None:
    assert reconnect_delay_s(9, down_s=0.0, jitter=0.0) == 0.0
    assert reconnect_delay_s(9, down_s=0.0, jitter=0.5) == 2.5
