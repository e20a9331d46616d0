"""The report: runs are kept by fault, version and seed; the table sums them up, and prose around it stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.findings import Finding, merged, read_findings, table, write_findings
from tests.chaos.report import BEGIN, END, keep

pytestmark = pytest.mark.smoke

RUN = Finding(
    fault="broker gone",
    seed=1,
    messages=100,
    confirmed=90,
    duplicates=2,
    twice=0,
    lost=0,
    dead=4,
    recovery_s=1.25,
    drain_s=3.0,
    held=True,
    leaked=(),
    broker="3.10.8",
    at="2026-01-02T03:04Z",
)


def test_findings_come_back_as_they_were_written(tmp_path: Path) -> None:
    runs = [RUN, replace(RUN, seed=2, leaked=("chaos: 3 channels, 2 before",)), replace(RUN, seed=3, leaked=None)]

    write_findings(tmp_path / "findings.jsonl", runs)

    assert read_findings(tmp_path / "findings.jsonl") == runs
    assert read_findings(tmp_path / "another.jsonl") == []


def test_another_seed_is_another_run_and_the_same_seed_replaces_one() -> None:
    other, again = replace(RUN, seed=2), replace(RUN, messages=7)

    assert merged([RUN, other], [again]) == [again, other]


def test_a_row_sums_up_the_seeds_of_one_fault_on_one_version() -> None:
    runs = [RUN, replace(RUN, seed=2, recovery_s=9.0, leaked=None), replace(RUN, broker="4.3.0", leaked=None)]

    rows = table(runs).splitlines()[2:]

    assert rows == [
        "| broker gone | 3.10.8 | 1, 2 | 200 | 180 | 4 | 0 | 0 | 8 | 0 | 9.0 | 3.0 |",
        "| broker gone | 4.3.0 | 1 | 100 | 90 | 2 | 0 | 0 | 4 | - | 1.2 | 3.0 |",
    ]


def test_keeping_runs_writes_the_table_and_leaves_the_prose(tmp_path: Path) -> None:
    (tmp_path / "chaos-report.md").write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_findings(tmp_path / "chaos-runs.jsonl", [RUN])
    write_findings(tmp_path / "new.jsonl", [replace(RUN, seed=2)])

    count = keep(tmp_path, [tmp_path / "new.jsonl"])

    report = (tmp_path / "chaos-report.md").read_text()
    assert count == len(read_findings(tmp_path / "chaos-runs.jsonl")) == 2
    assert report.startswith(f"before\n\n{BEGIN}\n- ")
    assert report.endswith(f"{END}\n\nafter\n")
    assert "old" not in report
    assert "| 1, 2 | 200 |" in report
    assert (tmp_path / "recovery.png").stat().st_size > 0


def test_a_report_without_a_place_for_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "chaos-report.md").write_text("nothing but prose\n")

    with pytest.raises(ValueError, match=r"chaos-report\.md has no lines"):
        keep(tmp_path, [])
