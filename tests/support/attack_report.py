"""Pytest's table of attacks: number, what was tried, which tests tried it, and whether the attack failed.

With `--attack-report PATH` the table is also written as Markdown, and a number without a test fails the run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.security.attacks.catalogue import CASES

__all__ = ["AttackReport", "numbers_of"]

OPTION: Final = "--attack-report"
_HELD: Final = "held"
_NO_TEST: Final = "NO TEST"
_BROKEN: Final = "BROKEN"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        OPTION, type=Path, default=None, metavar="PATH", help="write the table of attacks there, and demand all of them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start collecting."""
    config.pluginmanager.register(AttackReport(config.getoption(OPTION)), "attack-report-table")


def numbers_of(item: pytest.Item) -> Iterator[int]:
    """Yield the attacks that a test tries."""
    for mark in item.iter_markers("attack"):
        yield from mark.args


@dataclass(eq=False)
class AttackReport:
    """What one run has shown."""

    path: Path | None
    _tried: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _results: dict[str, str] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which tests try what.

        Raises:
            pytest.UsageError: a test names an attack that is not in the catalogue.
        """
        for item in session.items:
            if numbers := tuple(numbers_of(item)):
                self._tried[item.nodeid] = numbers
        unknown = {number for numbers in self._tried.values() for number in numbers} - CASES.keys()
        if unknown:
            raise pytest.UsageError(f"no such attacks in tests/security/attacks/catalogue.py: {sorted(unknown)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended; a failure in any phase stays one."""
        is_news = report.when == "call" or report.outcome != "passed"
        if is_news and report.nodeid in self._tried and self._results.get(report.nodeid) != "failed":
            self._results[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the table, and fail a run that was to be complete and is not."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.markdown(), encoding="utf-8")
        if any(self.verdict(number) != _HELD for number in CASES) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table when all attacks were asked for."""
        tried = {number for numbers in self._tried.values() for number in numbers}
        if self.path is None and not tried >= CASES.keys():
            return
        terminalreporter.section("attacks")
        for number, what in CASES.items():
            tests = ", ".join(self._named(number))
            terminalreporter.write_line(f"{number:>3}  {self.verdict(number):<8} {what}  [{tests}]")
        verdicts = Counter(self.verdict(number) for number in CASES)
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        terminalreporter.write_line(f"{len(CASES)} attacks: {told}; {len(self._results)} tests")

    def verdict(self, number: int) -> str:
        """Return whether the defence held in every test of an attack."""
        results = {self._results.get(nodeid) for nodeid in self._of(number)}
        if not results:
            return _NO_TEST
        return _HELD if results == {"passed"} else _BROKEN

    def markdown(self) -> str:
        """Return the table as a document."""
        rows = (
            (str(number), what, "<br>".join(f"`{name}`" for name in self._named(number)), self.verdict(number))
            for number, what in CASES.items()
        )
        return "\n".join((*_HEAD, *(f"| {' | '.join(row)} |" for row in rows), ""))

    def _of(self, number: int) -> Iterable[str]:
        return [nodeid for nodeid, numbers in self._tried.items() if number in numbers]

    def _named(self, number: int) -> list[str]:
        """Return the tests of an attack, each once, with how many variants of it ran."""
        variants = Counter(nodeid.partition("[")[0] for nodeid in self._of(number))
        return [
            f"{Path(path).name}::{name}" + (f" ({count})" if count > 1 else "")
            for (path, _, name), count in ((nodeid.partition("::"), count) for nodeid, count in variants.items())
        ]


_HEAD: Final = (
    "# Attacks",
    "",
    "Made by `make attacks`; do not edit. Each number is an attack or a bad input, tried by the tests named beside it,",
    "nearly all of them through the public consume path; *held* means that the defence held in every one of them. In",
    "brackets: how many variants of a test there are.",
    "",
    "| # | attack | tests in `tests/security/attacks/` | result |",
    "|---|---|---|---|",
)
