"""One signature per event-loop tick: what a tick sealed is signed together (docs/spec.md, "Signature").

The first message of a tick schedules the flush; at the tick's end or at the cap one Ed25519 signature covers all. A
message alone is signed alone, in the same tick. A cancelled publish leaves the batch; a failing signature fails all.
"""

import asyncio
from typing import Final

from messaging.core.sealed import Sealed
from messaging.errors import ConfigurationError, MessagingError
from messaging.security.seal import Sealer, Unsigned

__all__ = ["BATCH_MAX", "TickSigner"]

BATCH_MAX: Final = 64


class TickSigner:
    """Signs what one service seals, in batches; never shared between services.

    Args:
        sealer: Signs.
        batch_max: Most messages under one signature; 1 signs every message alone and at once.
    """

    def __init__(self, sealer: Sealer, *, batch_max: int = BATCH_MAX) -> None:
        self._sealer = sealer
        self._batch_max = batch_max
        self._waiting: list[tuple[Unsigned, asyncio.Future[Sealed]]] = []

    async def sign(self, unsigned: Unsigned) -> Sealed:
        """Return the signed message at the end of this tick."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sealed] = loop.create_future()
        self._waiting.append((unsigned, future))
        if len(self._waiting) >= self._batch_max:
            self._flush()
        elif len(self._waiting) == 1:
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        batch = [(unsigned, future) for unsigned, future in self._waiting if not future.done()]
        self._waiting.clear()
        if not batch:
            return
        try:
            sealed = self._sealer.sign([unsigned for unsigned, _ in batch])
        except BaseException as error:
            # Nobody may wait for ever for a signature, whatever went wrong; the event loop reports what is not ours.
            failure = error if isinstance(error, MessagingError) else ConfigurationError(f"signing failed: {error!r}")
            for _, future in batch:
                future.set_exception(failure)
            if isinstance(error, MessagingError):
                return
            raise
        for (_, future), one in zip(batch, sealed, strict=True):
            future.set_result(one)
