"""A million messages in one go: does anything grow, does any get lost, and at what rate?

    make bench-soak                      # 1 000 000 on a private node, some minutes
    python -m benchmarks.soak [--count 1000000] [--backlog] [--on node|tls|cluster] [--url amqp://…] [--name soak]

One process publishes with 100 in flight while another consumes; with `--backlog` it consumes only when all is there.
Each notes its memory every twentieth of the way. What counts is by how much it grows once it is warm: after a fifth of
the way, and not before the inbox in memory holds as many ids as it may. Writes `soak.md`, `.json` and `.png`.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from benchmarks.brokers import version_of
from benchmarks.curve_fits import Curve, Point
from benchmarks.grounds import Ground, add_options, ground
from benchmarks.keys import write_keys
from benchmarks.machine import described_machine
from benchmarks.plots import draw_curves
from benchmarks.programs import run_benchmark, running
from benchmarks.tables import number, rows
from messaging import Settings

__all__ = ["growth_mib", "main"]

RESULTS: Final = Path(__file__).parent / "results"
READY_S: Final = 60.0
LONGEST_S: Final = 4 * 3600.0
WARM: Final = 0.2
# The inbox drops what is oldest a little late.
FULL: Final = 1.1
INBOX_IDS: Final = int(Settings.model_fields["inbox_ids"].default)
WINDOW: Final = 100
# A publisher warms up with these, and they are handled as well.
WARM_UP: Final = 16

Json = dict[str, object]
Notes = Sequence[Mapping[str, float]]


def growth_mib(notes: Notes, *, inbox_ids: int = INBOX_IDS) -> float | None:
    """Return by how much memory grew since a process was warm, in MiB; less than nothing if it fell.

    Args:
        notes: Of one process, from its first to its last message.
        inbox_ids: How many messages fill its inbox.

    Returns:
        None if the way is too short to tell: less than twice what warms it.
    """
    last, warm = notes[-1]["messages"], max(notes[-1]["messages"] * WARM, inbox_ids * FULL)
    if last < 2 * warm:
        return None
    since = [note["rss_mib"] for note in notes if note["messages"] >= warm]
    return since[-1] - since[0]


async def soak(where: Ground, count: int, *, backlog: bool) -> tuple[Json, Json]:
    """Publish and consume; return both reports."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        write_keys(keys)
        environment = {"MESSAGING_KEYS": str(keys), "MESSAGING_NAMESPACE": "soak", **where.environment}

        def command(role: str, *more: object) -> list[str]:
            named = (role, "--url", where.url, "--window", WINDOW, *more)
            return [sys.executable, "-m", "benchmarks.load", *(str(one) for one in named)]

        async with running(command("declare"), title="declare", environment=environment) as program:
            await program.ended(timeout_s=READY_S)
        consuming = command("consume", "--count", count + WARM_UP, "--gate")
        async with (
            running(command("publish", "--count", count), title="publish", environment=environment) as publisher,
            running(consuming, title="consume", environment=environment) as consumer,
        ):
            await consumer.said("READY", timeout_s=READY_S)
            if not backlog:
                os.kill(consumer.pid, signal.SIGUSR1)
            sent = await publisher.report(timeout_s=LONGEST_S)
            if backlog:
                os.kill(consumer.pid, signal.SIGUSR1)
            handled = await consumer.report(timeout_s=LONGEST_S)
    return sent, handled


def notes_of(report: Json) -> Notes:
    """Return what a process noted."""
    return cast("Notes", report["notes"])


def document(sent: Json, handled: Json, head: str) -> str:
    """Return the result as Markdown."""
    lines = ["# Many messages in one go", "", head, "", "![Memory along the way](soak.png)", ""]
    body = []
    for role, report in (("publish", sent), ("consume", handled)):
        messages, wall_s, cpu_s = (float(str(report[key])) for key in ("messages", "wall_s", "cpu_s"))
        body.append(
            [
                role,
                f"{messages:,.0f}".replace(",", " "),
                number(messages / wall_s),
                number(cpu_s * 1e6 / messages),
                number(float(str(report["rss_mib"]))),
                "too short to tell" if (grown := growth_mib(notes_of(report))) is None else number(grown),
            ]
        )
    head_row = ["", "messages", "messages/s", "CPU µs each", "peak MiB", "growth once warm, MiB"]
    return "\n".join([*lines, *rows(head_row, body)])


def curve_of(sent: Json, handled: Json) -> Curve:
    """Return memory along the way, as a curve."""
    pairs = zip(notes_of(sent), notes_of(handled), strict=False)
    points = [Point(a["messages"], {"publish": a["rss_mib"], "consume": b["rss_mib"]}) for a, b in pairs]
    return Curve(
        name="soak",
        title="Memory along the way",
        x_title="messages",
        y_title="MiB",
        unit="MiB",
        of="message",
        points=points,
        is_cost=False,
    )


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--backlog", action="store_true", help="consume only when all is there")
    parser.add_argument("--name", default="soak", help="of the files that it writes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    add_options(parser)
    options = parser.parse_args()
    with ground(options) as where:
        release = asyncio.run(version_of(where.url, where.tls))
        sent, handled = run_benchmark(soak(where, options.count, backlog=options.backlog))
    head = (
        f"{described_machine()}; {where.title}, RabbitMQ {release}, Python {platform.python_version()}; "
        f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}. Signed, encrypted, confirmed, quorum queue, "
        f"{'consumed when all was there' if options.backlog else 'consumed meanwhile'}."
    )
    text = document(sent, handled, head).replace("soak.png", f"{options.name}.png")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.md").write_text(text)
    grown = [one for report in (sent, handled) if (one := growth_mib(notes_of(report))) is not None]
    growth = max(grown, default=None)
    found = {"head": head, "count": options.count, "growth_mib": growth, "publish": sent, "consume": handled}
    (options.out / f"{options.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    draw_curves(options.out / f"{options.name}.png", [curve_of(sent, handled)])
    print(text)  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
