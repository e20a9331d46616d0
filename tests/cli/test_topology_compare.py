"""Comparing with the broker: what is known, and what is said not to be."""

import json
from pathlib import Path

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.topology_compare import Comparison, comparison_record, recorded_bindings, show_comparison
from messaging.core.topology import Binding, Topology
from messaging.core.topology_plan import Difference, Plan, Step, Todo

STALE = Binding(exchange="e", queue="q", routing_key="k")
COMPARISON = Comparison(
    wanted=Topology(),
    plan=Plan(
        steps=(
            Step(todo=Todo.CREATE, what="queue a"),
            Step(todo=Todo.DIFFERS, what="queue b", differences=(Difference(argument="x", wanted=1, found=None),)),
            Step(todo=Todo.UNBIND, what="binding c", binding=STALE),
            Step(todo=Todo.LEFT_OVER, what="queue d"),
        )
    ),
    unchecked=("bindings",),
)


def test_each_step_is_a_line_and_what_is_unknown_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(COMPARISON)

    out, err = capsys.readouterr()
    assert [line[0] for line in out.splitlines() if line[:2] in ("+ ", "~ ", "- ", "? ")] == ["+", "~", "-", "?"]
    assert "x: wanted 1, found nothing" in out
    assert "nothing here deletes queues" in out
    assert err == "not checked: bindings\n"


def test_the_record_says_the_same() -> None:
    record = json.loads(json.dumps(comparison_record(COMPARISON)))

    assert [step["todo"] for step in record["steps"]] == ["create", "differs", "unbind", "left over"]
    assert record["not_checked"] == ["bindings"]
    assert COMPARISON.surplus == (STALE,)


def test_a_recorded_topology_gives_its_bindings(tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    file.write_text(json.dumps({"bindings": [{"exchange": "e", "queue": "q", "routing_key": "k"}]}))

    assert recorded_bindings(file) == {STALE}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bindings": [1]}', '{"bindings": [{"queue": "q"}]}'])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(content)

    with pytest.raises(UsageError, match=r"odd\.json is no output"):
        recorded_bindings(file)
