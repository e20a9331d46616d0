"""Looks how old the oldest dead letter is, by what its header says; without any key, and only when asked for.

It reads the whole queue and gives it back, which the broker counts on each letter (a million times are granted, see
docs/topology.md): a question for once an hour rather than for every probe.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from messaging.cli.finding import Finding, fine, warned
from messaging.cli.render import shown_age
from messaging.core.ambient import Ambient
from messaging.core.dead_letter import DeadLetter
from messaging.core.fault import Fault
from messaging.core.topology import Names
from messaging.errors import SealError
from messaging.runtime.dead_queue import DeadQueue
from messaging.security.evidence import look_at
from messaging.transports.base import Delivery, Transport

__all__ = ["check_dead_age"]


async def check_dead_age(
    transport: Transport, names: Names, services: Sequence[str], *, limit_s: float, ambient: Ambient
) -> AsyncIterator[Finding]:
    """Yield whether the oldest dead letter of each service is older than `limit_s` seconds."""
    for service in services:
        queue = names.queue(service, "dead")
        depth = await transport.depth(queue)
        if depth is None or not depth.messages:
            continue
        oldest_ms = await _oldest_ms(transport, queue, service)
        check = f"{service} dead letter age"
        if oldest_ms is None:
            yield fine(check, "no letter tells its time")
            continue
        age_s = max(0.0, (ambient.now_ms() - oldest_ms) / 1000)
        words = f"the oldest is from {shown_age(age_s)} ago"
        if age_s > limit_s:
            yield warned(check, words, remedy=f"decide on it: `messaging dead groups {service}`")
        else:
            yield fine(check, words)


async def _oldest_ms(transport: Transport, queue: str, service: str) -> int | None:
    oldest_ms: int | None = None
    async with (
        DeadQueue.reading(transport, queue, service=service, read=_claimed) as reading,
        aclosing(reading.letters()) as letters,
    ):
        async for found in letters:
            died_ms = found.letter.died_at_ms
            if died_ms and (oldest_ms is None or died_ms < oldest_ms):
                oldest_ms = died_ms
    return oldest_ms


def _claimed(delivery: Delivery) -> DeadLetter:
    """Return a letter with the time that its header claims; 0 for what has none."""
    try:
        issued_ms = look_at(delivery.body).header.iat
    except SealError:
        issued_ms = 0
    return DeadLetter(
        id=hashlib.sha256(delivery.body).hexdigest()[:32],
        service=delivery.queue,
        is_verified=False,
        fault=Fault(error="unread", reason="only its time was read", service=delivery.queue),
        died_at_ms=issued_ms,
    )
