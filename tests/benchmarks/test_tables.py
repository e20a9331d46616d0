import pytest

from benchmarks.contestants import AUTO, CONTESTANTS
from benchmarks.figures import PUBLISH, Sample
from benchmarks.goals import goals_of
from benchmarks.tables import failure_lines, goal_table, number, settings_lines, tables
from benchmarks.tournament import Outcome

OURS = next(one for one in CONTESTANTS if one.name == AUTO)
PEER = next(one for one in CONTESTANTS if one.name == "faststream")


def outcomes() -> dict[str, Outcome]:
    def of(per_s: float) -> Outcome:
        quantities = {"per_s": per_s, "cpu_us": 20.0, "p50_ms": 1.0, "p99_ms": 2.0, "rss_mib": 50.0}
        return Outcome(
            samples={0: [Sample(PUBLISH, quantities)]}, settings={"publish": "as it comes"}, versions={"lib": "1.2"}
        )

    return {AUTO: of(12_000.0), PEER.name: of(3_000.0)}


@pytest.mark.parametrize(
    ("value", "shown"), [(12345.6, "12 346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (-0.5, "-0.50")]
)
def test_numbers_are_shown_with_the_digits_that_mean_something(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_line_says_how_often_theirs_goes_into_ours() -> None:
    lines = tables([OURS, PEER], outcomes())

    assert lines[0] == "## Publish"
    assert lines[-2].startswith("| FastStream | 3 000 (3 000 to 3 000) | 20.0 | 1.00 | 2.00 | 50.0 | **4.00 x**")


def test_a_discipline_that_nobody_finished_has_no_table() -> None:
    assert tables([OURS], {AUTO: Outcome()}) == []


def test_goals_show_limit_finding_and_verdict() -> None:
    text = "\n".join(goal_table(goals_of(outcomes(), {PEER.name: PEER.title}, {"idle_mib": [58.0]})))

    assert "| publish, to FastStream | ≥ 3.00 x | ≥ 4.00 | 4.00 (4.00 to 4.00) | aim met |  |" in text
    assert "| memory, idle | ≤ 70.0 MiB | - | 58.0 (58.0 to 58.0) | met |  |" in text


def test_who_failed_is_listed_with_the_reason() -> None:
    found = {AUTO: Outcome(), PEER.name: Outcome(failures={"request": "took longer"})}

    assert "- FastStream, request: took longer" in failure_lines([OURS, PEER], found, {})
    assert "- import: too slow" in failure_lines([OURS], found, {"import": "too slow"})
    assert failure_lines([OURS], found, {}) == []


def test_what_was_set_is_printed_once() -> None:
    text = "\n".join(settings_lines([PEER], outcomes()))

    assert "| FastStream | as it comes | lib 1.2 |" in text
