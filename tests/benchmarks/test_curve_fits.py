import pytest

from benchmarks.curve_fits import fit_line, sentence


def test_points_on_a_line_are_found_again() -> None:
    fit = fit_line([1.0, 2.0, 100.0], [12.0, 14.0, 210.0])

    assert fit.start == pytest.approx(10.0)
    assert fit.slope == pytest.approx(2.0)
    assert fit.deviation == pytest.approx(0.0, abs=1e-9)
    assert fit.at(50.0) == pytest.approx(110.0)


def test_the_small_end_counts_as_much_as_the_large_one() -> None:
    # 10 + x, but for a tenth too much at the far end, which by absolute distances would outweigh all others.
    fit = fit_line([1.0, 10.0, 50.0, 1000.0], [11.0, 20.0, 60.0, 1111.0])

    assert fit.at(1.0) == pytest.approx(11.0, rel=0.05)
    assert fit.deviation < 0.11


def test_the_worst_point_is_named() -> None:
    fit = fit_line([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 6.0, 4.0])

    assert fit.worst_x == 3.0
    assert "not a straight line" in sentence("open", fit, unit="µs", of="byte")


def test_a_line_is_said_to_be_one() -> None:
    fit = fit_line([0.0, 10.0, 20.0], [5.0, 25.1, 45.0])

    assert sentence("seal", fit, unit="µs", of="recipient").startswith(
        "seal: a straight line, 5 µs + 2 µs for each recipient"
    )


def test_a_line_that_falls_and_one_without_a_unit_are_said_as_people_say_them() -> None:
    fit = fit_line([0.0, 10.0, 20.0], [45.0, 25.0, 5.0])

    assert sentence("memory, MiB", fit, unit="", of="service").startswith(
        "memory, MiB: a straight line, 45 - 2 for each service"
    )


@pytest.mark.parametrize(("xs", "ys"), [([1.0, 1.0], [2.0, 3.0]), ([1.0, 2.0], [0.0, 3.0])])
def test_what_has_no_line_is_refused(xs: list[float], ys: list[float]) -> None:
    with pytest.raises(ValueError, match="two different places"):
        fit_line(xs, ys)
