"""`Settler`: the one `match` on verdicts. Confirm first, record second; the acknowledgement is the last act.

A crash between any two steps leaves the message with the broker: it comes again and the inbox tells what happened. When
the broker cannot take what a verdict asks for, the delivery stays unacknowledged and the same step is tried again.
"""

import asyncio
from typing import Final, assert_never

import structlog

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope, Kind
from messaging.core.fault import Fault
from messaging.core.names import is_service
from messaging.core.retry import Ack, Bury, Defer, Move, Refuse, Retry, Skip, Verdict
from messaging.core.sealed import Route
from messaging.core.topology import Names, dead_routing_key
from messaging.errors import ConfigurationError, MessagingError, TransportError
from messaging.runtime.handling import Handling, Part
from messaging.runtime.publisher import Publisher
from messaging.runtime.rate import RateLimit
from messaging.runtime.router import FIRST_RUNG_MS
from messaging.runtime.run_history import RunHistory
from messaging.runtime.steps import steps_are_logged
from messaging.security.content import pack_fault
from messaging.security.suite import fault_id
from messaging.security.verified import Verified
from messaging.stores.base import Inbox, StoreUnavailableError

__all__ = ["Settler"]

# Samples of forgeries per second and bytes each: enough to look at, too little to hurt (docs/spec.md).
SAMPLES_PER_S: Final = 10
SAMPLE_MAX_BYTES: Final = 64 * 1024
# Dead letters are read by age, not by expiry; the header needs a lifetime within the bundle's bound all the same.
FAULT_LIFETIME_MS: Final = 7 * 24 * 3_600_000
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 5.0
_NOTHING_REMEMBERED: Final = RunHistory(None)

log = structlog.get_logger()


class Settler:
    """Carries out verdicts for one service."""

    def __init__(
        self,
        *,
        service: str,
        names: Names,
        publisher: Publisher,
        inbox: Inbox,
        ambient: Ambient,
        timeout_s: float,
        lifetime_ms: int = FAULT_LIFETIME_MS,
        history: RunHistory = _NOTHING_REMEMBERED,
    ) -> None:
        self._service = service
        self._names = names
        self._publisher = publisher
        self._inbox = inbox
        self._ambient = ambient
        self._timeout_s = timeout_s
        self._lifetime_ms = lifetime_ms
        self._history = history
        self._forgeries = RateLimit(per_s=SAMPLES_PER_S, monotonic_s=ambient.monotonic_s)
        self._skips = RateLimit(per_s=SAMPLES_PER_S, monotonic_s=ambient.monotonic_s)
        self._claims = RateLimit(per_s=SAMPLES_PER_S, monotonic_s=ambient.monotonic_s)
        self.counts: dict[str, int] = {}

    async def settle(self, handling: Handling, verdict: Verdict, *, stopping: asyncio.Event) -> None:
        """Carry out a verdict; while the broker cannot take it, try again until the service stops."""
        if handling.is_mislabelled:
            self._count("mislabelled")
        if type(verdict) is Ack and handling.reply is None and handling.fault is None:
            # The usual case: there is nothing to publish or to release.
            self._note_handled(handling)
            handling.delivery.ack()
            return
        patience_s = _BACKOFF_FIRST_S
        while True:
            try:
                await self._carry_out(handling, verdict)
            except MessagingError as error:
                log.warning("delivery.unsettled", reason=str(error), **handling.described())
                if not (error.transient or isinstance(error, TransportError)):
                    _simplify(handling)
            else:
                return
            if stopping.is_set():
                await self.give_back(handling)
                return
            await asyncio.sleep(patience_s)
            patience_s = min(2 * patience_s, _BACKOFF_MAX_S)

    async def postpone(self, handling: Handling, verdict: Retry | Defer) -> None:
        """Let go of a delivery that waits where it is for its next run: nothing may overtake it."""
        await self._history.note(handling)
        await self._let_go(handling)
        self._note_postponed(handling, verdict)

    async def give_back(self, handling: Handling) -> None:
        """Return the delivery to its queue, unhandled, and its lease to the inbox."""
        try:
            await self._let_go(handling)
        finally:
            handling.delivery.give_back()
            self._count("given_back")

    async def abandon(self, handling: Handling) -> None:
        """Give up on a delivery that a defect of this library stopped half-way.

        It comes back and is counted, so that the crash fuse ends the round; a queue that does not count would go round
        for ever, but there its caller runs into a timeout.
        """
        try:
            await self._let_go(handling)
        finally:
            if handling.part is Part.REQUESTS:
                handling.delivery.ack()
            else:
                handling.delivery.reject()
            self._count("abandoned")
            log.error("delivery.abandoned", **handling.described())

    async def _carry_out(self, handling: Handling, verdict: Verdict) -> None:
        match verdict:
            case Ack():
                await self._done(handling)
            case Retry():
                await self._retry(handling, verdict)
            case Bury():
                await self._bury(handling, verdict)
            case Refuse():
                await self._refuse(handling, verdict)
            case Skip():
                await self._skip(handling, verdict)
            case Defer():
                await self._defer(handling, verdict)
            case Move():
                await handling.delivery.forward(self._to(verdict.queue), timeout_s=self._timeout_s)
                self._count("moved")
            case _:
                assert_never(verdict)
        handling.delivery.ack()

    async def _done(self, handling: Handling) -> None:
        if handling.part is Part.REQUESTS and handling.reply is not None:
            await self._reply(handling, handling.reply)
        if handling.fault is not None:
            # What failed may run again when its caller asks again.
            await self._release(handling)
        self._note_handled(handling)

    def _note_handled(self, handling: Handling) -> None:
        self._count("handled")
        if handling.fault is not None:
            log.warning("request.failed", **handling.described(), error=handling.fault.error)
        elif steps_are_logged():
            log.debug("delivery.handled", **handling.described())

    async def _reply(self, handling: Handling, payload: bytes) -> None:
        if handling.envelope is None or handling.verified is None:
            return
        leaf = handling.verified.leaf
        await self._publisher.reply(handling.envelope, payload, leaf=leaf, codec=handling.reply_codec)

    async def _retry(self, handling: Handling, verdict: Retry) -> None:
        await self._to_rung(handling, round(verdict.delay_s * 1000), attempt=handling.attempt + 1)
        await self._history.note(handling)
        await self._release(handling)
        self._note_postponed(handling, verdict)

    async def _defer(self, handling: Handling, verdict: Defer) -> None:
        await self._to_rung(handling, FIRST_RUNG_MS, attempt=handling.delivery.attempt)
        await self._release(handling)
        self._note_postponed(handling, verdict)

    def _note_postponed(self, handling: Handling, verdict: Retry | Defer) -> None:
        if isinstance(verdict, Retry):
            self._count("retried")
            error = "" if handling.fault is None else handling.fault.error
            log.warning("delivery.retried", delay_s=verdict.delay_s, error=error, **handling.described())
            return
        self._count("deferred")
        if handling.verified is not None:
            log.info("delivery.deferred", delay_s=verdict.delay_s, reason=verdict.reason, **handling.described())
            return
        # A claim that nobody has proven: its words are anybody's, and there may be many.
        suppressed = self._claims.admit()
        if suppressed is not None:
            log.info("delivery.deferred", delay_s=verdict.delay_s, suppressed=suppressed, **handling.described())

    async def _to_rung(self, handling: Handling, delay_ms: int, *, attempt: int) -> None:
        delivery, now_ms = handling.delivery, self._ambient.now_ms()
        await delivery.forward(
            # The rung keeps the routing key, so it names the queue to come back to.
            Route(exchange=self._names.rung(self._service, delay_ms), routing_key=delivery.queue),
            attempt=attempt,
            # Nothing has failed in the future, whatever the unsigned header says.
            first_failed_ms=min(delivery.first_failed_ms or now_ms, now_ms),
            timeout_s=self._timeout_s,
        )

    async def _bury(self, handling: Handling, verdict: Bury) -> None:
        """Publish the dead letter, then record the failure: a crash between buries twice, never zero times."""
        if not handling.is_buried:
            # What comes after may have to be tried again while the database is away: one letter is enough.
            await self._write_letter(handling)
            handling.is_buried = True
        if handling.holds_lease:
            await self._inbox.fail(handling.lease)
        self._count("buried")
        fault = handling.fault
        log.error(
            "delivery.buried",
            reason=verdict.reason,
            error="" if fault is None else fault.error,
            fault=handling.said,
            **handling.described(),
        )

    async def _write_letter(self, handling: Handling) -> None:
        verified, fault = handling.verified, handling.fault
        if verified is None or fault is None or handling.part is Part.FAULTS:
            # Unverified, or a fault that itself fails: moved as it is, and nobody is told; no echo.
            await self._bury_raw(handling)
        else:
            await self._bury_with(handling, verified, fault)

    async def _bury_with(self, handling: Handling, verified: Verified, fault: Fault) -> None:
        history = tuple(await self._history.of(handling))
        total = fault.marked(attempts=fault.attempts + handling.earlier_attempts, history=history)
        payload = pack_fault(handling.original, total.to_map())
        is_command = verified.kind is Kind.COMMAND
        origin = verified.sender if is_command and is_service(verified.sender) else None
        try:
            await self._emit_letter(handling, verified, payload, origin=origin)
        except ConfigurationError:
            if origin is None:
                raise
            # The origin has left the trust bundle: nobody there can be told, the letter is kept all the same.
            await self._emit_letter(handling, verified, payload, origin=None)

    async def _emit_letter(self, handling: Handling, verified: Verified, payload: bytes, *, origin: str | None) -> None:
        now_ms = self._ambient.now_ms()
        letter = Envelope(
            id=fault_id(verified.leaf, handling.replays),
            kind=Kind.FAULT,
            name=verified.name,
            version=verified.version,
            sender=self._service,
            audience=origin or self._service,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + self._lifetime_ms,
            payload=payload,
            correlation_id=verified.correlation_id,
            causation_id=verified.id,
            bind=verified.leaf,
        )
        await self._publisher.emit(letter, key=dead_routing_key(self._service, origin))

    async def _bury_raw(self, handling: Handling) -> None:
        route = Route(exchange=self._names.undeliverable_exchange(self._service), routing_key=handling.delivery.queue)
        await handling.delivery.forward(
            route,
            attempt=handling.delivery.attempt,
            first_failed_ms=handling.delivery.first_failed_ms or self._ambient.now_ms(),
            timeout_s=self._timeout_s,
        )

    async def _refuse(self, handling: Handling, verdict: Refuse) -> None:
        await handling.delivery.forward(self._own("refused"), timeout_s=self._timeout_s)
        await self._release(handling)
        self._count(f"refused.{verdict.code}")
        log.error("delivery.refused", code=verdict.code, reason=verdict.reason, **handling.described())

    async def _skip(self, handling: Handling, verdict: Skip) -> None:
        await self._release(handling)
        self._count(f"skipped.{verdict.code}")
        if not handling.is_forged:
            # Whoever has one message can send it again and again: it must not fill the log either.
            left_out = self._skips.admit()
            if left_out is not None:
                words = handling.described()
                log.info("delivery.skipped", code=verdict.code, reason=verdict.reason, suppressed=left_out, **words)
            return
        suppressed = self._forgeries.admit()
        if suppressed is None:
            return
        handling.delivery.sample(self._own("quarantine"), limit_bytes=SAMPLE_MAX_BYTES)
        # Nothing of a forgery is repeated but its size: every word in it is the forger's.
        log.warning(
            "delivery.quarantined",
            queue=handling.delivery.queue,
            code=verdict.code,
            size_bytes=len(handling.delivery.body),
            suppressed=suppressed,
        )

    async def _let_go(self, handling: Handling) -> None:
        """Release the lease if the inbox can be told; the delivery returns in any case, or its place is lost."""
        try:
            await self._release(handling)
        except StoreUnavailableError as error:
            log.warning("delivery.unsettled", reason=str(error), **handling.described())

    async def _release(self, handling: Handling) -> None:
        if handling.holds_lease:
            await self._inbox.release(handling.lease)

    def _own(self, part: str) -> Route:
        return self._to(self._names.queue(self._service, part))

    def _to(self, queue: str) -> Route:
        return Route(exchange=self._names.return_exchange(self._service), routing_key=queue)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _simplify(handling: Handling) -> None:
    """Drop what can never be sealed, so that the next try ends: a reply that has no reader, a fault that has no room.

    The message itself is kept: without a fault it is buried as it came.
    """
    handling.reply = None
    handling.fault = None
