"""Findings and their order of gravity."""

from messaging.cli.finding import State, failed, fine, warned, worst


def test_the_worst_finding_counts_and_is_the_exit_code() -> None:
    assert worst([]) is State.OK
    assert worst([fine("a", "x"), warned("b", "y", remedy="z")]) is State.WARN
    assert worst([failed("a", "x", remedy="z"), fine("b", "y")]) is State.FAIL
    assert [int(state) for state in State] == [0, 1, 2]


def test_states_have_words() -> None:
    assert [state.word for state in State] == ["ok", "warn", "fail"]
