"""What sealing and opening cost: with a model against the goals, and bare by size, batch and number of recipients.

    python -m benchmarks.seal [--suite 1] [--seconds 0.05] [--rounds 5] [--goals] [--out benchmarks/results]

Figures are CPU microseconds per message of this process. The goals are ratios to one Ed25519 signature or verification
that is measured in the same round: ratios are what travels between machines.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from pydantic import BaseModel

from messaging.ambient import real_ambient
from messaging.core.codec import decode_model, encode_model
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Event, contract_of
from messaging.core.sealed import Sealed
from messaging.core.topology import Names, Subscriptions, routing_key
from messaging.security.development import DevelopmentTrust
from messaging.security.keys import SigningKey
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.security.suite import SUITE_1, SUITES

SIZES: Final = (256, 1024, 16 * 1024, 1024 * 1024)
BATCHES: Final = (1, 4, 16, 64)
RECIPIENTS: Final = (1, 4, 16)
EVENT: Final = "orders.order_placed"
KINDS: Final = frozenset({Kind.EVENT})
ORDER_BYTES: Final = 477
T = TypeVar("T")
# (batch, direction) -> (must, aim): at most this many signatures or verifications.
GOALS: Final = {
    (1, "seal"): (1.6, 1.3),
    (1, "open"): (1.3, 1.15),
    (16, "seal"): (0.5, 0.35),
    (16, "open"): (0.25, 0.15),
}


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int
    price_cents: int


class OrderPlaced(Event, name=EVENT):
    """An order of a shop, 477 bytes as JSON."""

    order_id: UUID
    customer: str
    email: str
    currency: str
    total_cents: int
    lines: list[Line]
    note: str


@dataclass(frozen=True)
class Goal:
    """One goal: medians over the rounds; `ratio` in signatures or verifications of the same round."""

    direction: str
    batch: int
    us: float
    ratio: float
    lowest: float
    must: float
    aim: float

    @property
    def judged(self) -> tuple[str, str, str]:
        """Must, aim and verdict, as in the table."""
        return f"≤ {self.must}", f"≤ {self.aim}", self.verdict

    @property
    def verdict(self) -> str:
        """What the ratio says of must and aim."""
        if self.ratio <= self.aim:
            return "must and aim met"
        return "must met, aim missed" if self.ratio <= self.must else "missed"


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


@dataclass(frozen=True)
class First:
    """The first message under a data key, which is wrapped to each recipient and unwrapped by one."""

    recipients: int
    body_bytes: int
    seal_us: float
    open_us: float


class Parties:
    """One sender and as many subscribers of its event as asked for, with keys of one suite."""

    def __init__(self, recipients: int, suite: int) -> None:
        self._ambient = real_ambient()
        self._names = Names("messaging")
        self._hears = Subscriptions(events=frozenset({(EVENT, 1)}))
        trust = DevelopmentTrust(ambient=self._ambient, suites=(suite,))
        readers = [trust.join(f"reader{number}", self._hears) for number in range(recipients)]
        self._reader = readers[0]
        self._writer = trust.join("orders")
        self.renew()

    def renew(self) -> None:
        """Forget all caches: the next message takes a fresh data key."""
        keyring, store = self._writer
        self.sealer = Sealer(keyring, store, self._names, ambient=self._ambient)
        keyring, store = self._reader
        self.opener = Opener(keyring, store, self._names, ambient=self._ambient, subscriptions=self._hears)

    def envelope(self, payload: bytes) -> Envelope:
        """Return a message with an id of its own."""
        now_ms = self._ambient.now_ms()
        return Envelope.first(
            id=self._ambient.new_id(),
            kind=Kind.EVENT,
            name=EVENT,
            version=1,
            sender="orders",
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + 3_600_000,
            payload=payload,
        )

    def seal(self, envelopes: Iterable[Envelope], batch: int) -> list[Sealed]:
        """Seal messages, `batch` under one signature."""
        key = routing_key(EVENT, 1)
        sealed: list[Sealed] = []
        waiting = []
        for envelope in envelopes:
            waiting.append(self.sealer.prepare(envelope, routing_key=key))
            if len(waiting) == batch:
                sealed += self.sealer.sign(waiting)
                waiting = []
        return sealed

    def seal_models(self, orders: Sequence[OrderPlaced], batch: int) -> list[Sealed]:
        """Seal models: dump and encoding, id and clock included."""
        codec = contract_of(OrderPlaced).codec
        return self.seal((self.envelope(encode_model(order, codec)) for order in orders), batch)

    def open(self, bodies: Sequence[bytes]) -> None:
        """Verify and decrypt as a subscriber does."""
        opener = self.opener
        for body in bodies:
            opener.decrypt(opener.verify(body, kinds=KINDS))

    def open_models(self, bodies: Sequence[bytes]) -> None:
        """Open messages up to the validated model."""
        opener = self.opener
        for body in bodies:
            envelope = opener.decrypt(opener.verify(body, kinds=KINDS))
            decode_model(OrderPlaced, envelope.payload, envelope.codec)


def order(number: int) -> OrderPlaced:
    """Return an order of 477 bytes as JSON."""
    fields = {
        "order_id": UUID(int=(7 << 76) + number),
        "customer": f"customer-{number:08d}",
        "email": f"customer-{number:08d}@example.org",
        "currency": "EUR",
        "total_cents": 10_000 + number % 10_000,
        "lines": [{"sku": f"sku-{number:06d}-{line}", "quantity": 1 + line, "price_cents": 1299} for line in range(3)],
        "note": "",
    }
    bare = len(OrderPlaced.model_validate(fields).model_dump_json())
    return OrderPlaced.model_validate({**fields, "note": "n" * (ORDER_BYTES - bare)})


def timed(work: Callable[[], T], *, each: int) -> tuple[float, T]:
    """Return CPU microseconds per message of one run, and what it made."""
    started = time.process_time()
    made = work()
    return (time.process_time() - started) * 1e6 / each, made


def sign_us(key: SigningKey, seconds: float) -> float:
    """Return what one Ed25519 signature costs now."""
    statement, count = bytes(64), max(100, int(seconds * 1e6 / 30))
    return timed(lambda: [key.sign(statement) for _ in range(count)], each=count)[0]


def verify_us(key: SigningKey, seconds: float) -> float:
    """Return what one Ed25519 verification costs now."""
    statement, count = bytes(64), max(100, int(seconds * 1e6 / 90))
    signature = key.sign(statement)
    return timed(lambda: [key.public.holds(signature, statement) for _ in range(count)], each=count)[0]


def goals(suite: int, seconds: float, rounds: int) -> list[Goal]:
    """Measure a model of 477 bytes; each ratio is to a signature or verification of the same round."""
    parties, key = Parties(1, suite), SigningKey.generate("bench")
    count = max(64, int(seconds * 1e6 / 50) // 64 * 64)
    orders = [order(number) for number in range(count)]
    for batch in (1, 16):
        parties.open_models(parties.seal_models(orders[:64], batch))
    spent: dict[tuple[int, str], list[tuple[float, float]]] = {place: [] for place in GOALS}
    for _ in range(rounds):
        for batch in (1, 16):
            before_us = sign_us(key, seconds / 4)
            seal_us, bodies = timed(partial(parties.seal_models, orders, batch), each=count)
            one_us = (before_us + sign_us(key, seconds / 4)) / 2
            spent[batch, "seal"].append((seal_us, seal_us / one_us))
            before_us = verify_us(key, seconds / 4)
            open_us, _ = timed(partial(parties.open_models, bodies), each=count)
            one_us = (before_us + verify_us(key, seconds / 4)) / 2
            spent[batch, "open"].append((open_us, open_us / one_us))
    found = []
    for (batch, direction), (must, aim) in GOALS.items():
        costs, ratios = zip(*spent[batch, direction], strict=True)
        us, ratio = statistics.median(costs), statistics.median(ratios)
        found.append(Goal(direction, batch, round(us, 1), round(ratio, 2), round(min(ratios), 2), must, aim))
    return found


def measured(parties: Parties, size_bytes: int, batch: int, *, seconds: float, rounds: int) -> tuple[float, float]:
    """Return sealing and opening of encoded messages of a size, medians over the rounds."""
    payload = b"\xc5" + bytes(size_bytes - 1)
    once = [parties.envelope(payload) for _ in range(batch)]
    parties.open(parties.seal(once, batch))
    trial = max(timed(partial(parties.seal, once, batch), each=batch)[0], 1.0)
    count = max(batch, min(4096, int(seconds * 1e6 / trial)) // batch * batch)
    sealing: list[float] = []
    opening: list[float] = []
    for _ in range(rounds):
        envelopes = [parties.envelope(payload) for _ in range(count)]
        seal_us, bodies = timed(partial(parties.seal, envelopes, batch), each=count)
        open_us, _ = timed(partial(parties.open, bodies), each=count)
        sealing.append(seal_us)
        opening.append(open_us)
    return statistics.median(sealing), statistics.median(opening)


def first(parties: Parties, recipients: int, rounds: int) -> First:
    """Return what the first message under a data key costs."""
    sealing: list[float] = []
    opening: list[float] = []
    size = 0
    for _ in range(5 * rounds):
        parties.renew()
        seal_us, bodies = timed(partial(parties.seal, [parties.envelope(bytes(256))], 1), each=1)
        open_us, _ = timed(partial(parties.open, bodies), each=1)
        sealing.append(seal_us)
        opening.append(open_us)
        size = len(bodies[0])
    return First(recipients, size, round(statistics.median(sealing), 1), round(statistics.median(opening), 1))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def goal_lines(found: Sequence[Goal]) -> list[str]:
    """Return the goals as Markdown."""
    units = {"seal": "signatures", "open": "verifications"}
    return [
        "## A model of 477 bytes, against the goals",
        "",
        "One pydantic model with three nested ones (477 bytes as JSON), to one recipient. *seal* is dump, msgpack,",
        "id, clock, encryption and signature; *open* is every check, decryption and validation of the model.",
        "*batch* is how many messages share one signature: 1 is the worst case. Medians over the rounds; the unit",
        "is one Ed25519 signature or verification, measured right before and after in the same round.",
        "",
        *table(
            ("", "batch", "µs", "in", "ratio", "lowest", "must", "aim", "verdict"),
            (
                (one.direction, one.batch, one.us, units[one.direction], one.ratio, one.lowest, *one.judged)
                for one in found
            ),
        ),
    ]


def row_lines(rows: Sequence[Row], firsts: Sequence[First]) -> list[str]:
    """Return the curves as Markdown."""
    return [
        "## By size, batch and recipients",
        "",
        "Encoded messages: everything but the model. A data key and its wraps serve many messages, so a further",
        "recipient costs each message only some 100 bytes of its row (suite 1) to hash and to carry.",
        "",
        *table(
            ("bytes", "batch", "recipients", "seal µs", "open µs", "seal, in signatures", "open, in verifications"),
            (tuple(asdict(row).values()) for row in rows),
        ),
        "## The first message under a data key",
        "",
        "256 bytes, signed alone, all caches empty: the key is wrapped to every recipient and unwrapped by one of",
        "them. A key serves 10 000 messages, 1 GiB or 300 s.",
        "",
        *table(("recipients", "body bytes", "seal µs", "open µs"), (tuple(asdict(one).values()) for one in firsts)),
    ]


def main() -> None:
    """Measure, and write the tables as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=int, choices=sorted(SUITES), default=SUITE_1, help="2 is post-quantum")
    parser.add_argument("--seconds", type=float, default=0.05, help="roughly, per round and figure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--goals", action="store_true", help="only the model against the goals")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    key = SigningKey.generate("bench")
    one_sign = min(sign_us(key, options.seconds) for _ in range(options.rounds))
    one_verify = min(verify_us(key, options.seconds) for _ in range(options.rounds))
    against = goals(options.suite, options.seconds, options.rounds)
    rows: list[Row] = []
    firsts: list[First] = []
    for recipients in () if options.goals else RECIPIENTS:
        parties = Parties(recipients, options.suite)
        firsts.append(first(parties, recipients, options.rounds))
        for size in SIZES:
            for batch in BATCHES:
                seal, opened = measured(parties, size, batch, seconds=options.seconds, rounds=options.rounds)
                ratios = round(seal / one_sign, 2), round(opened / one_verify, 2)
                rows.append(Row(size, batch, recipients, round(seal, 1), round(opened, 1), *ratios))
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"# Sealing and opening, suite {options.suite}",
        "",
        f"{machine}. One Ed25519 signature {one_sign:.0f} µs, one verification {one_verify:.0f} µs, at best.",
        "CPU of one process (user and system), broker and network not included.",
        "",
        *goal_lines(against),
        *(row_lines(rows, firsts) if rows else ()),
    ]
    print("\n".join(lines))  # noqa: T201 - the program's output
    if options.goals:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    name = "seal" if options.suite == SUITE_1 else f"seal-suite{options.suite}"
    (options.out / f"{name}.md").write_text("\n".join(lines))
    figures = {
        "suite": options.suite,
        "machine": machine,
        "sign_us": one_sign,
        "verify_us": one_verify,
        "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in against],
        "rows": [asdict(row) for row in rows],
        "first": [asdict(one) for one in firsts],
    }
    (options.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
