import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.curve_fits import Curve, Point

pytest.importorskip("matplotlib", reason="pictures are drawn with the extra `bench`")

from benchmarks.curves import document, fitted, joined, written


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


class TestOnlySome:
    def test_the_others_stay_as_they_are_and_say_of_which_run(self, tmp_path: Path) -> None:
        path = tmp_path / "curves.json"
        old = [replace(fitted(curve(is_cost=True)), name=name, title=name) for name in ("messages", "body")]
        path.write_text(
            json.dumps({"head": "then", "curves": [asdict(one) for one in old], "missing": {"queues": "no"}})
        )
        new = replace(fitted(curve(is_cost=True)), name="messages", title="anew", measured="now")

        curves, missing = joined(path, [new], {})

        assert curves == [new, replace(old[1], measured="then")]
        assert missing == {"queues": "no"}
        assert document(curves, missing, "now").count("Of an earlier run: then") == 1

    def test_a_curve_that_failed_now_is_missing_now(self, tmp_path: Path) -> None:
        path = tmp_path / "curves.json"
        path.write_text(json.dumps({"head": "then", "curves": [asdict(curve(is_cost=False))], "missing": {}}))

        assert joined(path, [], {"recipients": "it broke"}) == ([], {"recipients": "it broke"})

    def test_without_an_earlier_run_there_are_only_these(self, tmp_path: Path) -> None:
        new = fitted(curve(is_cost=True))

        assert joined(tmp_path / "curves.json", [new], {}) == ([new], {})
