import pytest

pytest.importorskip("matplotlib", reason="pictures are drawn with the extra `bench`")

from benchmarks.soak import curve_of, document, growth_mib


def notes(*rss_mib: float) -> list[dict[str, float]]:
    return [{"messages": float(number * 100), "rss_mib": held} for number, held in enumerate(rss_mib)]


def report(*rss_mib: float) -> dict[str, object]:
    return {"messages": 1000, "wall_s": 2.0, "cpu_s": 0.1, "rss_mib": max(rss_mib), "notes": notes(*rss_mib)}


def test_what_is_filled_in_the_first_fifth_is_no_growth() -> None:
    way = notes(50.0, 60.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 71.5)

    assert growth_mib(way, inbox_ids=100) == 1.5


def test_memory_that_falls_grows_by_less_than_nothing() -> None:
    assert growth_mib(notes(50.0, 60.0, 60.0, 58.0), inbox_ids=0) == -2.0


def test_a_way_that_hardly_fills_the_inbox_tells_nothing() -> None:
    assert growth_mib(notes(50.0, 60.0, 70.0), inbox_ids=150) is None


def test_a_result_shows_rate_cost_and_growth() -> None:
    text = document(report(50.0, 60.0, 61.0), report(50.0, 60.0, 60.0), "here")

    assert "| publish | 1 000 | 500 | 100 | 61.0 | too short to tell |" in text


def test_the_picture_has_both_processes() -> None:
    assert curve_of(report(50.0, 60.0), report(40.0, 41.0)).series == ("publish", "consume")
