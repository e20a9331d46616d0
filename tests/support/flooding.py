"""Floods: many bodies, put into a queue in waves so that only a wave of them is in memory at a time."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgpack

from messaging.security.outer import split_parts
from tests.support.arena import Arena

__all__ = ["Flooded", "flooded", "forged"]

MID_AT: Final = 8
WAVE: Final = 5_000


@dataclass(slots=True)
class Flooded:
    """What a flood changed: as `Outcome`, summed over its waves."""

    counts: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    kept: list[bytes] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    ran: int = 0

    def assert_forged(self, code: str, *, times: int, samples: int) -> None:
        """Check that nothing was believed and nothing stayed but the samples of one second."""
        assert dict(self.counts) == {f"skipped.{code}": times}
        assert (self.ran, self.kept, self.dead) == (0, [], [])
        assert self.quarantined <= samples


def forged(body: bytes, count: int) -> Iterator[bytes]:
    """Yield messages of a real sender with ids of their own, whose signature does not hold."""
    fields: list[Any] = msgpack.unpackb(split_parts(body).header)
    at = body.index(fields[MID_AT])
    for _ in range(count):
        yield body[:at] + os.urandom(16) + body[at + 16 :]


async def flooded(arena: Arena, bodies: Iterable[bytes], *, service: str = "orders") -> Flooded:
    """Put bodies into the queue of a service's commands, wave by wave, and return what changed."""
    flood, rest = Flooded(), iter(bodies)
    while wave := list(islice(rest, WAVE)):
        outcome = await arena.struck(*wave, service=service)
        flood.counts.update(outcome.counts)
        flood.quarantined += len(outcome.quarantined)
        flood.kept += outcome.refused
        flood.dead += outcome.dead
        flood.ran += len(outcome.ran)
        assert (outcome.waiting, outcome.left) == (0, 0)
    return flood
