"""What sealing and opening cost: alone and in batches, by size and by number of recipients.

    python -m benchmarks.seal [--suite 1] [--seconds 0.3] [--out benchmarks/results]

Figures are CPU microseconds per message of this process, medians of several rounds, and ratios to one Ed25519 signature
or verification measured in the same run: the ratios are what travels between machines.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from messaging.ambient import real_ambient
from messaging.core.envelope import Envelope, Kind
from messaging.core.sealed import Sealed
from messaging.core.topology import Names, Subscriptions, routing_key
from messaging.security.development import DevelopmentTrust
from messaging.security.keys import SigningKey
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.security.suite import SUITE_1, SUITES

SIZES = (256, 477, 1024, 16 * 1024, 1024 * 1024)
BATCHES = (1, 4, 16, 64)
RECIPIENTS = (1, 4, 16)
ROUNDS = 5
EVENT = "orders.order_placed"
KINDS = frozenset({Kind.EVENT})


@dataclass(frozen=True)
class Row:
    """One line of the table; times in CPU microseconds per message."""

    size_bytes: int
    batch: int
    recipients: int
    seal_us: float
    open_us: float
    seal_signs: float
    open_verifies: float


class Parties:
    """One sender and as many subscribers of its event as asked for, with keys of one suite."""

    def __init__(self, recipients: int, suite: int) -> None:
        ambient = real_ambient()
        self._ambient = ambient
        names = Names("messaging")
        trust = DevelopmentTrust(ambient=ambient, suites=(suite,))
        hears = Subscriptions(events=frozenset({(EVENT, 1)}))
        readers = [trust.join(f"reader{number}", hears) for number in range(recipients)]
        keyring, store = trust.join("orders")
        self.sealer = Sealer(keyring, store, names, ambient=ambient)
        reader_keys, reader_trust = readers[0]
        self.opener = Opener(reader_keys, reader_trust, names, ambient=ambient, subscriptions=hears)

    def envelopes(self, size_bytes: int, count: int) -> list[Envelope]:
        """Return messages of a size, each with an id of its own."""
        now_ms = self._ambient.now_ms()
        return [
            Envelope.first(
                id=self._ambient.new_id(),
                kind=Kind.EVENT,
                name=EVENT,
                version=1,
                sender="orders",
                issued_at_ms=now_ms,
                expires_at_ms=now_ms + 3_600_000,
                payload=b"\xc5" + bytes(size_bytes - 1),
            )
            for _ in range(count)
        ]

    def seal(self, envelopes: Sequence[Envelope], batch: int) -> list[Sealed]:
        """Seal messages, `batch` under one signature."""
        key = routing_key(EVENT, 1)
        sealed: list[Sealed] = []
        for start in range(0, len(envelopes), batch):
            unsigned = [self.sealer.prepare(envelope, routing_key=key) for envelope in envelopes[start : start + batch]]
            sealed += self.sealer.sign(unsigned)
        return sealed

    def open(self, bodies: Sequence[bytes]) -> None:
        """Verify and decrypt as a subscriber does."""
        for body in bodies:
            self.opener.decrypt(self.opener.verify(body, kinds=KINDS))


def cpu_us(work: Callable[[], object], *, each: int) -> float:
    """Return CPU microseconds per message of one run."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e6 / each


def measured(parties: Parties, size_bytes: int, batch: int, seconds: float) -> tuple[float, float]:
    """Return sealing and opening, medians over the rounds."""
    parties.seal(parties.envelopes(size_bytes, batch), batch)
    once = parties.envelopes(size_bytes, batch)
    trial = max(cpu_us(lambda: parties.seal(once, batch), each=batch), 1.0)
    count = max(batch, min(4096, int(seconds * 1e6 / trial)) // batch * batch)
    sealing: list[float] = []
    opening: list[float] = []
    for _ in range(ROUNDS):
        envelopes = parties.envelopes(size_bytes, count)
        bodies: list[Sealed] = []

        def seal(into: list[Sealed] = bodies, of: Sequence[Envelope] = envelopes) -> None:
            into.extend(parties.seal(of, batch))

        sealing.append(cpu_us(seal, each=count))
        opening.append(cpu_us(partial(parties.open, bodies), each=count))
    return statistics.median(sealing), statistics.median(opening)


def curve_us(seconds: float) -> tuple[float, float]:
    """Return what one Ed25519 signature and one verification cost here."""
    key = SigningKey.generate("bench")
    statement = bytes(64)
    signature = key.sign(statement)
    count = max(100, int(seconds * 1e6 / 60))
    signs = [cpu_us(lambda: [key.sign(statement) for _ in range(count)], each=count) for _ in range(ROUNDS)]
    verifies = [
        cpu_us(lambda: [key.public.holds(signature, statement) for _ in range(count)], each=count)
        for _ in range(ROUNDS)
    ]
    return statistics.median(signs), statistics.median(verifies)


def main() -> None:
    """Measure, and write the table as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=int, choices=sorted(SUITES), default=SUITE_1, help="2 is post-quantum")
    parser.add_argument("--seconds", type=float, default=0.3, help="roughly, per round and figure")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    sign_us, verify_us = curve_us(options.seconds)
    rows: list[Row] = []
    for recipients in RECIPIENTS:
        parties = Parties(recipients, options.suite)
        for size_bytes in SIZES:
            for batch in BATCHES:
                seal_us, open_us = measured(parties, size_bytes, batch, options.seconds)
                rows.append(
                    Row(
                        size_bytes=size_bytes,
                        batch=batch,
                        recipients=recipients,
                        seal_us=round(seal_us, 1),
                        open_us=round(open_us, 1),
                        seal_signs=round(seal_us / sign_us, 2),
                        open_verifies=round(open_us / verify_us, 2),
                    )
                )
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"# Sealing and opening, suite {options.suite}",
        "",
        f"{machine}. One Ed25519 signature {sign_us:.0f} µs, one verification {verify_us:.0f} µs of CPU in this run.",
        "Python objects included, the user's model not. Batch 1 is the worst case: every message signed alone.",
        "",
        "| bytes | batch | recipients | seal µs | open µs | seal, in signatures | open, in verifications |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.size_bytes} | {row.batch} | {row.recipients} | {row.seal_us} | {row.open_us} | {row.seal_signs} "
            f"| {row.open_verifies} |"
            for row in rows
        ),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    name = "seal" if options.suite == SUITE_1 else f"seal-suite{options.suite}"
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n")
    figures = {
        "suite": options.suite,
        "machine": machine,
        "sign_us": sign_us,
        "verify_us": verify_us,
        "rows": [asdict(row) for row in rows],
    }
    (options.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("\n".join(lines))  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
