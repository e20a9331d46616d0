"""`Bulk`: hashes and encrypts what is large beside the event loop, one at a time (docs/performance.md, "Large bodies").

4 MiB cost milliseconds, in which no other message would move. Below the bound the way to a thread costs more than the
work. Only pure work on values goes there: policy, keys, caches and states are asked on the loop, before or after it.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from messaging.core.envelope import Envelope, Kind
from messaging.security.open import Opener
from messaging.security.seal import Sealer, Unsigned
from messaging.security.verified import Verified

__all__ = ["BULK_BYTES", "Bulk"]

BULK_BYTES: Final = 256 * 1024

T = TypeVar("T")


class Bulk:
    """The thread's queue of one publisher or consumer."""

    def __init__(self) -> None:
        # More threads would only take turns: a single one keeps the memory of what is under way bounded.
        self._turn = asyncio.Lock()

    async def prepared(self, sealer: Sealer, envelope: Envelope, *, key: str) -> Unsigned:
        """Return what `Sealer.prepare` returns; raises as that does."""
        if len(envelope.payload) <= BULK_BYTES:
            return sealer.prepare(envelope, routing_key=key)
        return await self._aside(sealer.begin(envelope, routing_key=key))

    async def verified(self, opener: Opener, body: bytes, *, kinds: frozenset[Kind], queue: str) -> Verified:
        """Return what `Opener.verify` returns; raises as that does. Keys and policy are those after the hashing."""
        if len(body) <= BULK_BYTES:
            return opener.verify(body, kinds=kinds, queue=queue)
        claim = await self._aside(opener.read(body).hashed)
        return opener.verify_claim(claim, kinds=kinds, queue=queue)

    async def decrypted(self, opener: Opener, verified: Verified) -> Envelope:
        """Return what `Opener.decrypt` returns; raises as that does."""
        if len(verified.body) <= BULK_BYTES:
            return opener.decrypt(verified)
        return await self._aside(opener.opening(verified))

    async def _aside(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(work)
