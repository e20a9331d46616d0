"""The goals, as a table that is computed: what must hold, what is aimed at, what was found.

Ratios are of throughput unless they say otherwise, taken round by round; ours is sealed, theirs is plaintext.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.contestants import ALONE, AUTO
from benchmarks.figures import CONSUME, PUBLISH, REQUEST, REQUEST_SEQUENTIAL, Figure, figure_of, ratio_of
from benchmarks.tournament import Outcome

__all__ = ["Goal", "Verdict", "goals_of"]

FASTSTREAM: Final = "faststream"
MODELS: Final = "aio-pika-models"
CHANNEL: Final = "aio-pika-channel"
RPC: Final = "aio-pika-rpc"
NAMEKO: Final = "nameko"
FLASK: Final = "flask"
# A machine on which one Ed25519 verification takes this long is the one that the goals in microseconds are meant for.
VERIFY_US: Final = (70.0, 97.0)


class Verdict(Enum):
    """How a goal stands."""

    AIM_MET = "aim met"
    MET = "met"
    MISSED = "**missed**"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal and what was found.

    Attributes:
        text: What is compared.
        must, aim: Limits; None: there is none.
        found: The median with its spread; None: not measured.
        more_is_better: Whether the limits are lower ones.
        unit: Behind the numbers.
        note: Why it was not measured, or at what it was.
    """

    text: str
    must: float
    aim: float | None
    found: Figure | None
    more_is_better: bool
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """How it stands, by the median."""
        if self.found is None:
            return Verdict.NOT_MEASURED
        if self.aim is not None and self._reaches(self.aim):
            return Verdict.AIM_MET
        return Verdict.MET if self._reaches(self.must) else Verdict.MISSED

    def _reaches(self, limit: float) -> bool:
        assert self.found is not None
        return self.found.median >= limit if self.more_is_better else self.found.median <= limit


@dataclass(frozen=True, slots=True)
class _Ratio:
    ours: str
    discipline: str
    peer: str
    must: float
    aim: float | None
    quantity: str = "per_s"


_RATIOS: Final = (
    _Ratio(AUTO, PUBLISH, FASTSTREAM, 3.0, 4.0),
    _Ratio(AUTO, PUBLISH, MODELS, 2.0, 2.5),
    _Ratio(AUTO, PUBLISH, CHANNEL, 1.5, 2.0),
    _Ratio(AUTO, CONSUME, FASTSTREAM, 3.0, 4.0),
    _Ratio(AUTO, CONSUME, MODELS, 2.0, 2.5),
    _Ratio(AUTO, CONSUME, CHANNEL, 1.5, 2.0),
    _Ratio(ALONE, CONSUME, FASTSTREAM, 1.3, 1.8),
    _Ratio(AUTO, REQUEST, FASTSTREAM, 10.0, 16.0),
    _Ratio(AUTO, REQUEST, RPC, 2.0, 3.5),
    _Ratio(AUTO, REQUEST, NAMEKO, 4.0, 6.0),
    _Ratio(AUTO, REQUEST, FLASK, 2.5, 4.0),
    _Ratio(AUTO, REQUEST_SEQUENTIAL, RPC, 0.9, 0.7, "p50_ms"),
    _Ratio(AUTO, REQUEST_SEQUENTIAL, RPC, 1.0, None, "p99_ms"),
)


@dataclass(frozen=True, slots=True)
class _Limit:
    text: str
    key: str
    must: float
    aim: float | None
    unit: str
    more_is_better: bool = False
    note: str = ""


# What is measured beside the rounds, by the name it is handed in under.
_LIMITS: Final = (
    _Limit("sealing 477 bytes alone, in Ed25519 signatures", "seal_alone", 1.6, 1.3, "signatures"),
    _Limit("opening them, in verifications", "open_alone", 1.3, 1.15, "verifications"),
    _Limit("sealing in batches of 16", "seal_16", 0.5, 0.35, "signatures"),
    _Limit("opening them", "open_16", 0.25, 0.15, "verifications"),
    _Limit("memory, idle", "idle_mib", 70.0, None, "MiB"),
    _Limit("memory, idle, with a database", "idle_database_mib", 100.0, None, "MiB"),
    _Limit(
        "growth of memory over 1 000 000 messages",
        "growth_mib",
        10.0,
        None,
        "MiB",
        note="`make bench-soak`, a run of its own ([soak.md](soak.md))",
    ),
    _Limit("import, in the dependencies' own time", "import_ratio", 1.5, 1.2, "x"),
    _Limit("from imported to connected and consuming", "consuming_ms", 500.0, None, "ms"),
    _Limit("effectively once, SQLite, alone", "sqlite_alone", 300.0, None, "commands/s", more_is_better=True),
    _Limit("effectively once, SQLite, by 10", "sqlite_by_10", 1500.0, None, "commands/s", more_is_better=True),
    _Limit(
        "effectively once, SQLite, by 10, rows left to the end",
        "sqlite_by_10,_rows_left_to_the_end",
        1500.0,
        None,
        "commands/s",
        more_is_better=True,
    ),
    _Limit("effectively once, PostgreSQL, alone", "postgresql_alone", 500.0, None, "commands/s", more_is_better=True),
    _Limit("effectively once, PostgreSQL, by 10", "postgresql_by_10", 1500.0, None, "commands/s", more_is_better=True),
    _Limit(
        "effectively once, PostgreSQL, by 10, rows left to the end",
        "postgresql_by_10,_rows_left_to_the_end",
        1500.0,
        None,
        "commands/s",
        more_is_better=True,
    ),
)


def goals_of(
    outcomes: Mapping[str, Outcome], titles: Mapping[str, str], extras: Mapping[str, Sequence[float]]
) -> list[Goal]:
    """Return every goal with what was found.

    Args:
        outcomes: Of the rounds, by contestant.
        titles: How tables name the contestants.
        extras: What else was measured, by name; several values are rounds.
    """
    return [
        *(_ratio_goal(ratio, outcomes, titles) for ratio in _RATIOS),
        *_cpu_goals(outcomes, extras),
        *(
            Goal(
                text=limit.text,
                must=limit.must,
                aim=limit.aim,
                found=figure_of(values) if (values := extras.get(limit.key)) else None,
                more_is_better=limit.more_is_better,
                unit=limit.unit,
                note=limit.note,
            )
            for limit in _LIMITS
        ),
    ]


def _ratio_goal(ratio: _Ratio, outcomes: Mapping[str, Outcome], titles: Mapping[str, str]) -> Goal:
    ours, theirs = outcomes.get(ratio.ours), outcomes.get(ratio.peer)
    found = None
    if ours is not None and theirs is not None:
        found = ratio_of(ours.values(ratio.discipline, ratio.quantity), theirs.values(ratio.discipline, ratio.quantity))
    which = " (every message signed alone)" if ratio.ours == ALONE else ""
    what = "" if ratio.quantity == "per_s" else f", {ratio.quantity.removesuffix('_ms')}"
    return Goal(
        text=f"{ratio.discipline}{which}{what}, to {titles.get(ratio.peer, ratio.peer)}",
        must=ratio.must,
        aim=ratio.aim,
        found=found,
        more_is_better=ratio.quantity == "per_s",
        unit="x",
        note="" if found else _why_not(ratio, ours, theirs),
    )


def _why_not(ratio: _Ratio, ours: Outcome | None, theirs: Outcome | None) -> str:
    for name, outcome in ((ratio.ours, ours), (ratio.peer, theirs)):
        if outcome is None:
            return f"{name} did not take part"
        if outcome.failures:
            return "; ".join(outcome.failures.values())
    return ""


def _cpu_goals(outcomes: Mapping[str, Outcome], extras: Mapping[str, Sequence[float]]) -> list[Goal]:
    verify_us = figure_of(extras["verify_us"]).median if extras.get("verify_us") else None
    scale = 1.0 if verify_us is None else _scale(verify_us)
    at = "" if verify_us is None else f"one verification takes {verify_us:.0f} µs here; limits times {scale:.2f}"
    ours = outcomes.get(AUTO)
    found: list[Goal] = []
    for discipline, must, aim in ((PUBLISH, 50.0, 35.0), (CONSUME, 60.0, 40.0)):
        values = [] if ours is None else list(ours.values(discipline, "cpu_us").values())
        found.append(
            Goal(
                text=f"{discipline}, CPU of our process for each message",
                must=must * scale,
                aim=aim * scale,
                found=figure_of(values) if values else None,
                more_is_better=False,
                unit="µs",
                note=at,
            )
        )
    return found


def _scale(verify_us: float) -> float:
    lowest, highest = VERIFY_US
    return verify_us / min(max(verify_us, lowest), highest)
