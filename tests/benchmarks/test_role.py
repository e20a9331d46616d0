import asyncio

import pytest

from benchmarks.peers.role import Countdown, Options, drive, drive_threads, peak_rss_mib, percentiles


def options(messages: int, sequential: int = 0, window: int = 4) -> Options:
    return Options(
        role="publish", url="amqp://nowhere", queue="q", messages=messages, sequential=sequential, window=window
    )


def test_percentiles_are_those_of_the_sorted_values() -> None:
    found = percentiles([value / 1000 for value in range(100, 0, -1)])

    assert found == {
        "p50": pytest.approx(51.0),
        "p90": pytest.approx(91.0),
        "p99": pytest.approx(100.0),
        "max": pytest.approx(100.0),
    }


def test_a_backlog_holds_the_warm_up_and_all_that_is_measured() -> None:
    assert options(1000, sequential=50).backlog == 100 + 1000 + 50


async def test_asyncio_programs_never_have_more_in_flight_than_the_window() -> None:
    flying, most, sent = 0, 0, 0

    async def send(_: int) -> None:
        nonlocal flying, most, sent
        flying, sent = flying + 1, sent + 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1

    edges: list[int] = []

    found = await drive(send, options(100, sequential=7, window=4), at_edge=lambda: edges.append(sent))

    assert (most, sent) == (4, 10 + 100 + 7)
    assert edges == [10, 10 + 100]
    assert [stretch["messages"] for stretch in found.values() if isinstance(stretch, dict)] == [100, 7]


def test_blocking_programs_send_every_number_once_from_all_threads() -> None:
    numbers: list[int] = []

    found = drive_threads(numbers.append, options(20), threads=3)

    assert sorted(numbers) == sorted([0, 1, *range(20)])
    assert set(found) == {"windowed"}


def test_a_consumer_counts_what_comes_after_its_warm_up() -> None:
    ends: list[str] = []
    countdown = Countdown(options(10), on_done=lambda: ends.append("done"))

    for _ in range(10):
        countdown.count()
    before = dict(countdown.found)
    countdown.count()

    assert before == {}
    assert countdown.found["messages"] == 10
    assert ends == ["done"]


def test_the_memory_of_this_process_is_more_than_nothing() -> None:
    assert peak_rss_mib() > 1.0
