"""`Spreading`: hands partitions over until each replica has its share.

The broker feeds whoever came first, and goes on until that one leaves: after a start, or when replicas are added, one
may have all partitions and the others none. Every replica consumes the plain queue too, so its consumers are the
replicas. Who is fed with more partitions than its share releases some: the broker feeds the next in line, in order. A
partition that holds nothing costs nobody anything, so only those count that have brought something.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from messaging.core.ambient import Ambient
from messaging.errors import TransportError
from messaging.transports.base import Transport

__all__ = ["Movable", "Spreading"]

_LOOK_EVERY_S: Final = 5.0
# If nobody else wants it, it comes back to us: not again at once.
_AGAIN_S: Final = 60.0

log = structlog.get_logger()


class Movable(Protocol):
    """A partition, as its replica sees it."""

    @property
    def queue(self) -> str:
        """Its queue."""

    @property
    def is_fed(self) -> bool:
        """Whether the broker feeds this replica."""

    @property
    def is_waiting(self) -> bool:
        """Whether anything waits here for its next try, which would begin anew elsewhere."""

    @property
    def running(self) -> int:
        """How many deliveries are being handled."""

    def hand_over(self) -> None:
        """Return everything in its order, and stand by."""


class Spreading:
    """Looks after the share of one replica.

    Args:
        partitions: All partitions of the service, as this replica sees them.
        home: The plain queue, which every replica consumes.
        transport: Counts its consumers.
        ambient: Clock and chance.
    """

    def __init__(self, partitions: Sequence[Movable], *, home: str, transport: Transport, ambient: Ambient) -> None:
        self._partitions = partitions
        self._home = home
        self._transport = transport
        self._ambient = ambient
        self._moved_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look now and then, for ever; replicas that start together look at different times."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S * (0.5 + self._ambient.jitter()))
            try:
                await self.look()
            except TransportError as error:
                log.debug("partition.uncounted", queue=self._home, reason=str(error))

    async def look(self) -> int:
        """Hand over half of what is too much; returns how many partitions that were."""
        fed = [partition for partition in self._partitions if partition.is_fed]
        if len(fed) <= 1:
            return 0
        depth = await self._transport.depth(self._home)
        replicas = 1 if depth is None else max(1, depth.consumers)
        excess = len(fed) - math.ceil(len(self._partitions) / replicas)
        if excess <= 0:
            return 0
        now_s = self._ambient.monotonic_s()
        movable = [
            partition
            for partition in fed
            if not partition.is_waiting and now_s - self._moved_s.get(partition.queue, -math.inf) >= _AGAIN_S
        ]
        # Half of it: whoever is next may have to pass it on.
        chosen = sorted(movable, key=lambda partition: partition.running)[: math.ceil(excess / 2)]
        for partition in chosen:
            self._moved_s[partition.queue] = now_s
            log.info("partition.handed_over", queue=partition.queue, replicas=replicas)
            partition.hand_over()
        return len(chosen)
