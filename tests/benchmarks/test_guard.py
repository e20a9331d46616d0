"""The guard: what counts as slower, and that a planted slowdown is found. No figure is judged against a clock."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from benchmarks import guard

RECORDED = {"publish": {"crypto": 0.5, "python": 200.0}, "open": {"crypto": 0.4, "python": 150.0}}


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_step_is_slower_when_it_exceeds_the_margin_in_every_unit() -> None:
    now = {"publish": {"crypto": 0.8, "python": 320.0}, "open": {"crypto": 0.4, "python": 150.0}}

    assert guard.exceeded(now, RECORDED, 1.5) == ["publish"]


def test_a_machine_whose_cryptography_is_quick_beside_its_python_is_not_slower() -> None:
    now = {"publish": {"crypto": 1.5, "python": 210.0}}

    assert guard.exceeded(now, RECORDED, 1.5) == []


def test_a_step_that_was_never_recorded_is_not_judged() -> None:
    assert guard.exceeded({"replay": {"crypto": 9.0, "python": 9_000.0}}, RECORDED, 1.5) == []


def test_steps_are_told_in_the_units_of_the_same_run() -> None:
    assert guard.units_of({"open": 50.0, "crypto": 100.0, "python": 0.25}) == {"open": {"crypto": 0.5, "python": 200.0}}


def test_every_step_is_recorded_and_means_something() -> None:
    recorded = json.loads(guard.BASELINE.read_text())

    assert {"seal", "open", "publish", "consume", "request"} <= recorded.keys()
    assert all(figures[unit] > 0 for figures in recorded.values() for unit in guard.UNITS)


def test_it_measures_records_and_barks_at_a_planted_slowdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"
    small = ["--rounds", "1", "--messages", "64", "--baseline", str(baseline)]

    assert guard.main([*small, "--record"]) == 0
    recorded = json.loads(baseline.read_text())
    # Planted so large that no noise of this machine hides it, judged by a margin that none exceeds.
    assert guard.main([*small, "--margin", "20", "--slow", "consume=40000"]) == 1
    assert "consume" in capsys.readouterr().out.partition("TOO SLOW")[0].splitlines()[-1]
    assert json.loads(baseline.read_text()) == recorded
