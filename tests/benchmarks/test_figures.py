import pytest

from benchmarks.figures import CONSUME, PUBLISH, PUBLISH_SEQUENTIAL, Figure, figure_of, ratio_of, samples_of


def test_a_figure_is_the_middle_with_its_spread() -> None:
    assert figure_of([5.0, 1.0, 3.0]) == Figure(3.0, 1.0, 5.0)


def test_no_rounds_make_no_figure() -> None:
    with pytest.raises(ValueError, match="no round"):
        figure_of([])


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine halves its speed in round 1: the ratio of the medians would say 1.5, the rounds say 2.
    ours, theirs = {0: 200.0, 1: 100.0, 2: 300.0}, {0: 100.0, 1: 50.0, 2: 150.0}

    assert ratio_of(ours, theirs) == Figure(2.0, 2.0, 2.0)


def test_a_ratio_leaves_out_rounds_that_one_of_them_missed() -> None:
    assert ratio_of({0: 4.0, 1: 8.0}, {1: 2.0, 2: 1.0}) == Figure(4.0, 4.0, 4.0)
    assert ratio_of({0: 4.0}, {1: 2.0}) is None


def test_a_report_becomes_a_sample_for_each_stretch() -> None:
    report = {
        "peak_rss_mib": 40.0,
        "windowed": {"messages": 1000, "wall_s": 0.5, "cpu_s": 0.1, "latency_ms": {"p50": 2.0, "p99": 9.0}},
        "sequential": {"messages": 10, "wall_s": 0.1, "cpu_s": 0.01},
    }

    windowed, sequential = samples_of("publish", report)

    assert (windowed.discipline, sequential.discipline) == (PUBLISH, PUBLISH_SEQUENTIAL)
    assert windowed.quantities == {
        "per_s": 2000.0,
        "cpu_us": pytest.approx(100.0),
        "rss_mib": 40.0,
        "p50_ms": 2.0,
        "p99_ms": 9.0,
    }
    assert sequential.quantities["per_s"] == pytest.approx(100.0)


def test_a_consumer_has_no_stretch_one_at_a_time() -> None:
    report = {"peak_rss_mib": 1.0, "windowed": {"messages": 1, "wall_s": 1.0, "cpu_s": 1.0}}

    assert [sample.discipline for sample in samples_of("consume", report)] == [CONSUME]
