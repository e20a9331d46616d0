"""The comparison: sealed by us against plaintext by the others, in one run, round by round.

    make bench                           # everything, about ten minutes
    python -m benchmarks.compare [--rounds 5] [--messages 4000] [--only faststream …] [--quick] [--url amqp://…]

Starts a private RabbitMQ node, or takes `--url`. Writes `comparison.md`, `.json` and `.png` into `benchmarks/results/`.
What is measured and why it is fair: `benchmarks/README.md`.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.beside import Beside, soak_of
from benchmarks.brokers import Broker, lent_or_private, version_of
from benchmarks.certificates import write_certificate
from benchmarks.contestants import AUTO, CONTESTANTS, Contestant
from benchmarks.environments import FOLDER
from benchmarks.figures import DISCIPLINES, figure_of, ratio_of
from benchmarks.goals import Goal, goals_of
from benchmarks.keys import write_keys
from benchmarks.machine import described_machine
from benchmarks.plots import draw_comparison
from benchmarks.programs import run_benchmark
from benchmarks.tables import failure_lines, goal_table, settings_lines, tables
from benchmarks.tournament import IN_FLIGHT, WINDOW, Outcome, Size, Tournament

__all__ = ["main"]

RESULTS: Final = Path(__file__).parent / "results"
QUICK: Final = Size(rounds=2, messages=300, published_singly=30, requests=120, requested_singly=30)

Json = dict[str, object]


def tell(words: str) -> None:
    """Say what goes on."""
    sys.stderr.write(f"{words}\n")


def document(
    contestants: Sequence[Contestant],
    outcomes: Mapping[str, Outcome],
    goals: Sequence[Goal],
    beside: Mapping[str, str],
    *,
    head: Sequence[str],
) -> str:
    """Return the whole result as Markdown."""
    lines = ["# Sealed by us, in the clear by the others", "", *head, ""]
    lines += ["![Throughput of all](comparison.png)", ""]
    lines += tables(contestants, outcomes)
    lines += goal_table(goals)
    lines += failure_lines(contestants, outcomes, beside)
    lines += settings_lines(contestants, outcomes)
    return "\n".join(lines).rstrip() + "\n"


def head_of(size: Size, machine: Mapping[str, str], took_s: float) -> list[str]:
    """Return what a reader must know before the tables."""
    return [
        f"{machine['machine']}. RabbitMQ {machine['broker']}, Python {machine['python']}; {machine['when']}, "
        f"{took_s / 60:.0f} minutes.",
        "",
        f"Medians of {size.rounds} interleaved rounds, in brackets the lowest and highest round. A 477-byte order as a "
        "pydantic model; durable quorum queue, persistent, confirmed, mandatory; for requests classic queues. "
        f"Window and prefetch {WINDOW}, {IN_FLIGHT} requests in flight. {size.messages} messages and {size.requests} "
        f"requests in each round, {size.published_singly} and {size.requested_singly} one at a time; a tenth more to "
        "warm up. CPU is user and system time of the whole process. *Ours is* says how often their throughput goes "
        "into that of messaging signed with its tick, round by round.",
        "",
        "Where it is fair and where it is not: [the benchmark's own page](../README.md).",
    ]


def figures_json(contestants: Sequence[Contestant], outcomes: Mapping[str, Outcome]) -> Json:
    """Return all figures for programs: each with its rounds."""
    found: Json = {}
    for contestant in contestants:
        outcome = outcomes[contestant.name]
        disciplines: Json = {}
        for discipline in DISCIPLINES:
            quantities = {
                quantity: {**asdict(figure_of(list(values.values()))), "rounds": values}
                for quantity in sorted({key for s in outcome.samples.values() for one in s for key in one.quantities})
                if (values := outcome.values(discipline, quantity))
            }
            if not quantities:
                continue
            ratio = (
                ratio_of(outcomes[AUTO].values(discipline, "per_s"), outcome.values(discipline, "per_s"))
                if AUTO in outcomes
                else None
            )
            disciplines[discipline] = {**quantities, "ours_is": None if ratio is None else asdict(ratio)}
        found[contestant.name] = {
            "title": contestant.title,
            "failures": outcome.failures,
            "settings": outcome.settings,
            "versions": outcome.versions,
            "figures": disciplines,
        }
    return found


def goals_json(goals: Sequence[Goal]) -> list[Json]:
    """Return the goals for programs."""
    return [{**asdict(goal), "verdict": goal.verdict.name.lower()} for goal in goals]


async def compare(options: argparse.Namespace, size: Size) -> None:
    """Run everything and write the results."""
    chosen = [one for one in CONTESTANTS if not options.only or one.is_ours or one.name in options.only]
    began_s = time.monotonic()
    with lent_or_private(options.url) as (url, quorum_url), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        broker = Broker(url=url, quorum_url=quorum_url, version=await version_of(url), is_private=options.url is None)
        keys, certificate = folder / "keys", folder / "https.pem"
        write_keys(keys)
        write_certificate(certificate)
        beside = Beside(url, keys, folder, is_quick=options.quick, tell=tell)
        extras = await beside.measure() | soak_of(options.out)
        tournament = Tournament(
            chosen, broker=broker, size=size, keys=keys, certificate=certificate, tell=tell, environments=options.folder
        )
        outcomes = await tournament.run()
    titles = {one.name: one.title for one in CONTESTANTS}
    goals = goals_of(outcomes, titles, extras)
    machine = {
        "machine": described_machine(),
        "broker": broker.version,
        "python": platform.python_version(),
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    text = document(chosen, outcomes, goals, beside.failures, head=head_of(size, machine, time.monotonic() - began_s))
    write(options.out, text, chosen, outcomes, goals, machine | {"size": asdict(size)}, extras)


def write(
    out: Path,
    text: str,
    contestants: Sequence[Contestant],
    outcomes: Mapping[str, Outcome],
    goals: Sequence[Goal],
    run: Mapping[str, object],
    extras: Mapping[str, Sequence[float]],
) -> None:
    """Write Markdown, JSON and the picture, and show the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.md").write_text(text)
    found = {
        "run": run,
        "contestants": figures_json(contestants, outcomes),
        "goals": goals_json(goals),
        "beside": extras,
    }
    (out / "comparison.json").write_text(json.dumps(found, indent=1) + "\n")
    draw_comparison(out / "comparison.png", contestants, outcomes, subtitle=str(run["machine"]))
    print(text)  # noqa: T201 - the program's output
    tell(f"written to {out}")


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=4000, help="published and consumed in each round")
    parser.add_argument("--requests", type=int, default=2000, help="asked in each round")
    parser.add_argument("--only", nargs="*", default=[], choices=[one.name for one in CONTESTANTS if not one.is_ours])
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that it works")
    parser.add_argument("--url", help="of a RabbitMQ that may be used; a private node otherwise")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the peers' environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    size = Size(
        rounds=options.rounds,
        messages=options.messages,
        published_singly=200,
        requests=options.requests,
        requested_singly=300,
    )
    run_benchmark(compare(options, QUICK if options.quick else size))


if __name__ == "__main__":
    main()
