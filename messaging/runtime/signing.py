"""One signature per event-loop tick: what a tick sealed is signed together (docs/spec.md, "Signature").

The first message of a tick schedules the flush; at the tick's end or at the cap one Ed25519 signature covers all. A
message alone is signed alone, in the same tick. A cancelled publish leaves the batch; a failing signature fails all.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVarTuple

from messaging.core.sealed import Label, Route, Sealed
from messaging.errors import ConfigurationError, MessagingError
from messaging.security.seal import Sealer, Unsigned
from messaging.stores.base import Outgoing

__all__ = ["BATCH_MAX", "TickSigner"]

BATCH_MAX: Final = 64

Arguments = TypeVarTuple("Arguments")


class Waiting(Protocol):
    """Who waits for a message to leave: a future, or what stands for one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_exception(self, exception: Exception, /) -> None:
        """Take why it does not leave."""


class TickSigner:
    """Signs what one service seals, in batches; never shared between services.

    Args:
        sealer: Signs.
        batch_max: Most messages under one signature; 1 signs every message alone and at once.
        on_tick: Called when a tick's messages were passed on: nothing more comes with them.
    """

    def __init__(
        self, sealer: Sealer, *, batch_max: int = BATCH_MAX, on_tick: Callable[[], None] | None = None
    ) -> None:
        self._sealer = sealer
        self._batch_max = batch_max
        self._on_tick = on_tick
        self._waiting: list[tuple[Unsigned, Waiting, Callable[..., None], tuple[object, ...]]] = []

    def sealing(self, unsigned: Unsigned, *, route: Route, label: Label, lane: str | None) -> asyncio.Future[Outgoing]:
        """Begin to sign a message for an outbox; it is there at the end of this tick."""
        outcome: asyncio.Future[Outgoing] = asyncio.get_running_loop().create_future()

        def take(sealed: Sealed) -> None:
            outcome.set_result(Outgoing(sealed=sealed, route=route, label=label, partition_key=lane))

        self.pass_on(unsigned, take, waiting=outcome)
        return outcome

    def pass_on(
        self, unsigned: Unsigned, take: Callable[[Sealed, *Arguments], None], *arguments: *Arguments, waiting: Waiting
    ) -> None:
        """Call `take` with the signed message at the end of this tick.

        Args:
            unsigned: The message.
            take: Sends it on. It should not raise: then `waiting` is told, and the event loop.
            waiting: Who waits for what becomes of it: told when it cannot be signed, and asked whether it still waits.
            arguments: What `take` gets after the signed message.
        """
        entries = self._waiting
        entries.append((unsigned, waiting, take, arguments))
        count = len(entries)
        if count >= self._batch_max:
            self._flush()
        elif count == 1:
            asyncio.get_running_loop().call_soon(self._end_tick)

    def _end_tick(self) -> None:
        if self._waiting:
            self._flush()
            if self._on_tick is not None:
                self._on_tick()

    def _flush(self) -> None:
        batch = [entry for entry in self._waiting if not entry[1].done()]
        self._waiting.clear()
        if not batch:
            return
        try:
            sealed = self._sealer.sign([unsigned for unsigned, _, _, _ in batch])
        except BaseException as error:
            # Nobody may wait for ever for a signature, whatever went wrong; the event loop reports what is not ours.
            failure = error if isinstance(error, MessagingError) else ConfigurationError(f"signing failed: {error!r}")
            for _, waiting, _, _ in batch:
                waiting.set_exception(failure)
            if isinstance(error, MessagingError):
                return
            raise
        for (_, waiting, take, arguments), one in zip(batch, sealed, strict=True):
            try:
                take(one, *arguments)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one must not hold back the others
                _report(waiting, error)


def _report(waiting: Waiting, error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(ConfigurationError(f"it could not be sent: {error!r}"))
    asyncio.get_running_loop().call_exception_handler({"message": "a message was not passed on", "exception": error})
