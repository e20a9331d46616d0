"""The results of a comparison as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.contestants import AUTO, Contestant
from benchmarks.figures import (
    CONSUME,
    DISCIPLINES,
    PUBLISH,
    PUBLISH_SEQUENTIAL,
    REQUEST,
    REQUEST_SEQUENTIAL,
    Figure,
    figure_of,
    ratio_of,
)
from benchmarks.goals import Goal
from benchmarks.tournament import Outcome

__all__ = ["failure_lines", "goal_table", "rows", "settings_lines", "tables"]

NONE: Final = "-"
_COLUMNS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    PUBLISH: (("per_s", "messages/s"), ("cpu_us", "CPU µs each"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms")),
    PUBLISH_SEQUENTIAL: (
        ("per_s", "messages/s"),
        ("cpu_us", "CPU µs each"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99 ms"),
    ),
    CONSUME: (("per_s", "messages/s"), ("cpu_us", "CPU µs each")),
    REQUEST: (
        ("per_s", "requests/s"),
        ("cpu_us", "client CPU µs"),
        ("server_cpu_us", "server CPU µs"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99 ms"),
    ),
    REQUEST_SEQUENTIAL: (("per_s", "requests/s"), ("p50_ms", "p50 ms"), ("p90_ms", "p90 ms"), ("p99_ms", "p99 ms")),
}


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [_row(head), _row(["---"] * len(head)), *(_row(line) for line in body), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Return a number with three significant digits or more, thousands set apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(figure: Figure) -> str:
    """Return a median with its lowest and highest."""
    return f"{number(figure.median)} ({number(figure.lowest)} to {number(figure.highest)})"


def tables(contestants: Sequence[Contestant], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return a table for each discipline: medians, lowest and highest round, and how ours compares."""
    lines: list[str] = []
    for discipline in DISCIPLINES:
        body = [
            _line(contestant, outcomes, discipline)
            for contestant in contestants
            if outcomes[contestant.name].values(discipline, "per_s")
        ]
        if body:
            titles = [title for _, title in _COLUMNS[discipline]]
            lines += [f"## {discipline[0].upper()}{discipline[1:]}", ""]
            lines += rows(["", *titles, "peak MiB", "ours is"], body)
    return lines


def _line(contestant: Contestant, outcomes: Mapping[str, Outcome], discipline: str) -> list[str]:
    outcome = outcomes[contestant.name]
    cells = [contestant.title]
    for quantity, _ in (*_COLUMNS[discipline], ("rss_mib", "")):
        values = list(outcome.values(discipline, quantity).values())
        shown = (
            NONE
            if not values
            else spread(figure_of(values))
            if quantity == "per_s"
            else number(figure_of(values).median)
        )
        cells.append(shown)
    ratio = None
    if not contestant.is_ours and AUTO in outcomes:
        ratio = ratio_of(outcomes[AUTO].values(discipline, "per_s"), outcome.values(discipline, "per_s"))
    return [
        *cells,
        NONE if ratio is None else f"**{number(ratio.median)} x** ({number(ratio.lowest)} to {number(ratio.highest)})",
    ]


def goal_table(goals: Sequence[Goal]) -> list[str]:
    """Return the goals with what was found and how they stand."""

    def limit(goal: Goal, value: float | None) -> str:
        return NONE if value is None else f"{'≥' if goal.more_is_better else '≤'} {number(value)}"

    body = [
        [
            goal.text,
            f"{limit(goal, goal.must)} {goal.unit}".strip(),
            limit(goal, goal.aim),
            NONE if goal.found is None else spread(goal.found),
            goal.verdict.value,
            goal.note or "",
        ]
        for goal in goals
    ]
    return ["## Goals", "", *rows(["goal", "must", "aim", "found", "", ""], body)]


def failure_lines(
    contestants: Sequence[Contestant], outcomes: Mapping[str, Outcome], beside: Mapping[str, str]
) -> list[str]:
    """Return who was left out of what, and what else was not measured, and why."""
    found = [
        f"- {contestant.title}, {part}: {reason}"
        for contestant in contestants
        for part, reason in outcomes[contestant.name].failures.items()
    ]
    found += [f"- {name}: {reason}" for name, reason in beside.items()]
    return ["## Left out", "", *found, ""] if found else []


def _settings(by_role: Mapping[str, str]) -> str:
    """Return what was set, once if all roles say the same."""
    said = set(by_role.values())
    if len(said) == 1:
        return said.pop()
    return "<br>".join(f"*{role}*: {text}" for role, text in by_role.items())


def settings_lines(contestants: Sequence[Contestant], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return what everybody had set, as the programs themselves said, and their versions."""
    body = [
        [
            contestant.title,
            _settings(outcomes[contestant.name].settings),
            ", ".join(f"{name} {version}" for name, version in sorted(outcomes[contestant.name].versions.items())),
        ]
        for contestant in contestants
        if outcomes[contestant.name].settings
    ]
    return ["## What was set", "", *rows(["", "settings", "versions"], body)]
