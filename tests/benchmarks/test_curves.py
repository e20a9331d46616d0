import pytest

from benchmarks.curve_fits import Curve, Point

pytest.importorskip("matplotlib", reason="pictures are drawn with the extra `bench`")

from benchmarks.curves import document, fitted, written


def curve(*, is_cost: bool) -> Curve:
    points = [Point(x, {"seal": 10.0 + 2.0 * x}) for x in (1.0, 4.0, 16.0)]
    return Curve(
        name="recipients",
        title="By recipients",
        x_title="recipients",
        y_title="CPU µs",
        unit="µs",
        of="recipient",
        points=points,
        is_cost=is_cost,
    )


def test_a_cost_gets_a_line_and_a_sentence() -> None:
    lines = written(fitted(curve(is_cost=True)))

    assert "| 4.00 | 18.0 |" in lines
    assert any("seal: a straight line, 10 µs + 2 µs for each recipient" in line for line in lines)


def test_throughput_gets_no_line() -> None:
    assert fitted(curve(is_cost=False)).fits == {}


def test_what_was_not_measured_is_named() -> None:
    text = document([], {"queues": "no cluster"}, "here")

    assert "- not measured: queues: no cluster" in text
