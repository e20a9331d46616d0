"""Where the time of a message goes: flame graphs of a sender and a receiver at work, and a table by part.

    make flame                           # about two minutes
    python -m benchmarks.flame [--seconds 10] [--rate 400] [--url amqp://…]

Starts a private RabbitMQ node, or takes `--url`. A role of `benchmarks.load` runs undisturbed first, which gives the
CPU time of a message; then again at full speed, and once it has warmed up py-spy looks at it, native frames included.
Writes `flame-publish.svg`, `flame-consume.svg` and `flame.md` into `benchmarks/results/`. What waits is not counted:
shares are of the time that the process ran. A look stops the process for a moment, more readily in a system call than
elsewhere, so those look larger than they are.
"""

import argparse
import asyncio
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.brokers import lent_or_private, version_of
from benchmarks.flame_picture import draw_flame
from benchmarks.flame_stacks import Stack, read_stacks, shares
from benchmarks.keys import write_keys
from benchmarks.machine import described_machine
from benchmarks.programs import Program, ProgramError, run_benchmark, running
from benchmarks.tables import number, rows

__all__ = ["Profile", "document", "main"]

RESULTS: Final = Path(__file__).parent / "results"
PROFILER: Final = Path(sys.executable).with_name("py-spy")
WARM_S: Final = 2.0
READY_S: Final = 60.0
RUN_S: Final = 900.0
PLAIN: Final = 20_000
# What a sender sends before it counts.
WARM_UP_MESSAGES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one role does with its time.

    Attributes:
        role: `publish` or `consume`.
        cpu_us: CPU time of a message, undisturbed, µs.
        per_s: Messages a second, undisturbed.
        stacks: What the profiler saw.
        is_native: Whether it saw C code too.
    """

    role: str
    cpu_us: float
    per_s: float
    stacks: Sequence[Stack]
    is_native: bool

    @property
    def samples(self) -> int:
        """How many looks found it running."""
        return sum(stack.count for stack in self.stacks)


class Roles:
    """Starts roles of `benchmarks.load`.

    Args:
        url: Of the broker.
        keys: Folder of keys.
    """

    def __init__(self, url: str, keys: Path) -> None:
        self._url = url
        self._environment = {"MESSAGING_KEYS": str(keys), "MESSAGING_NAMESPACE": "flame"}

    def program(self, role: str, count: int) -> tuple[list[str], Mapping[str, str]]:
        """Return command line and environment of a role."""
        command = [sys.executable, "-m", "benchmarks.load", role, "--url", self._url, "--count", str(count)]
        return command, self._environment

    async def declare(self) -> None:
        """Make the queues."""
        command, environment = self.program("declare", 1)
        async with running(command, title="declare", environment=environment) as program:
            await program.ended(timeout_s=READY_S)

    async def plain(self, role: str, count: int) -> tuple[float, float]:
        """Run a role to its end; return CPU µs of a message, and messages a second."""
        command, environment = self.program(role, count)
        async with running(command, title=role, environment=environment) as program:
            report = await program.report(timeout_s=RUN_S)
            await program.ended()
        messages, cpu_s, wall_s = (report[name] for name in ("messages", "cpu_s", "wall_s"))
        assert isinstance(messages, int)
        assert isinstance(cpu_s, float)
        assert isinstance(wall_s, float)
        return cpu_s * 1e6 / messages, messages / wall_s


async def profiled(roles: Roles, role: str, options: argparse.Namespace, scratch: Path) -> Profile:
    """Run a role twice: to measure it, and to look at it."""
    cpu_us, per_s = await roles.plain(role, PLAIN)
    count = int(per_s * (WARM_S + options.seconds) * 2)
    if role == "consume":
        await roles.plain("publish", count)
    raw = scratch / f"{role}.raw"
    is_native = True
    command, environment = roles.program(role, count)
    async with running(command, title=role, environment=environment) as program:
        await asyncio.sleep(WARM_S)
        try:
            await look(program, raw, options, "--native")
        except ProgramError as error:
            sys.stderr.write(f"without native frames: {error}\n")
            is_native = False
            await look(program, raw, options)
    stacks = read_stacks(raw.read_text())
    if not stacks:
        raise ProgramError(f"py-spy saw nothing of {role}")
    return Profile(role=role, cpu_us=cpu_us, per_s=per_s, stacks=stacks, is_native=is_native)


async def look(program: Program, raw: Path, options: argparse.Namespace, *extra: str) -> None:
    """Let py-spy look at a program for a while.

    Raises:
        ProgramError: it cannot.
    """
    words = ("--pid", str(program.pid), "--duration", str(options.seconds), "--rate", str(options.rate))
    command = [str(PROFILER), "record", *words, "--format", "raw", "--output", str(raw), *extra]
    async with running(command, title="py-spy") as profiler:
        await profiler.ended(timeout_s=options.seconds + READY_S)


def document(profiles: Sequence[Profile], head: str) -> str:
    """Return tables of all parts as Markdown."""
    lines = ["# Where the time of a message goes", "", head, ""]
    for profile in profiles:
        lines += [
            f"## {profile.role.capitalize()}",
            "",
            f"{number(profile.cpu_us)} µs of CPU for each message, {number(profile.per_s)} messages a second, "
            f"{profile.samples} samples{'' if profile.is_native else '; C counts as its caller: it was not seen'}.",
            "",
            f"![Flame graph of {profile.role}](flame-{profile.role}.svg)",
            "",
        ]
        found = sorted(shares(profile.stacks).items(), key=lambda item: -item[1])
        body = [[part, f"{share:.1%}", f"{share * profile.cpu_us:.1f}"] for part, share in found]
        lines += rows(["part", "share", "µs for each message"], body)
    lines += [
        "A part has the time of its own code, and of interpreter and standard library on its behalf; what it calls in",
        "another part is that part's. The pictures begin at a turn of the event loop; boxes narrower than a pixel are",
        "not drawn. A look stops the process more readily in a system call than elsewhere, so those look larger than",
        "they are (`os.getpid`, too).",
    ]
    return "\n".join(lines) + "\n"


async def run(options: argparse.Namespace) -> None:
    """Measure, look, and write the results."""
    if not PROFILER.exists():
        raise SystemExit("py-spy is not installed: `make flame` does it, or `pip install '.[bench]'`")
    with lent_or_private(options.url) as (url, _), tempfile.TemporaryDirectory() as folder:
        version = await version_of(url)
        scratch = Path(folder)
        write_keys(scratch / "keys")
        roles = Roles(url, scratch / "keys")
        await roles.declare()
        profiles = [await profiled(roles, role, options, scratch) for role in ("publish", "consume")]
    head = (
        f"{described_machine()}. RabbitMQ {version}, Python {platform.python_version()}; "
        f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}. A 477-byte order, signed, encrypted, confirmed, quorum "
        f"queue, 100 in flight; py-spy, {options.rate} looks a second for {options.seconds} s."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for profile in profiles:
        picture = draw_flame(
            profile.stacks, title=f"{profile.role}: {number(profile.cpu_us)} µs of CPU for each message"
        )
        (options.out / f"flame-{profile.role}.svg").write_text(picture)
    text = document(profiles, head)
    (options.out / "flame.md").write_text(text)
    print(text)  # noqa: T201 - the program's output


def main() -> None:
    """Draw the flame graphs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="how long each role is looked at")
    parser.add_argument("--rate", type=int, default=400, help="looks a second")
    parser.add_argument("--url", help="of a RabbitMQ that may be used; a private node otherwise")
    parser.add_argument("--out", type=Path, default=RESULTS)
    run_benchmark(run(parser.parse_args()))


if __name__ == "__main__":
    main()
