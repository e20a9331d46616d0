"""What failures and refusals lead to: from an exception to a fault and a verdict, without I/O.

The table is that of docs/spec.md, "Where a refused message goes", and of docs/failure.md, "Verdicts".
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.core.codec import pack_plain
from messaging.core.envelope import CODEC_MSGPACK
from messaging.core.fault import Attempt, Fault
from messaging.core.message import contract_of
from messaging.core.retry import Ack, Bury, Defer, Refuse, Retry, RetryPolicy, Skip, Verdict
from messaging.errors import (
    Disposition,
    MessagingError,
    RemoteError,
    RemoteFailure,
    SealError,
    StaleMessageError,
    UnknownMessageError,
)
from messaging.runtime.handling import Handling, Part
from messaging.runtime.router import FIRST_RUNG_MS
from messaging.security.verified import Verified

__all__ = ["Identity", "Outcomes", "Redact"]

FIRST_RUNG_S: Final = FIRST_RUNG_MS / 1000
# A newer trust bundle is here within this time, or it will not come; a clock that is behind needs longer.
LAG_MS: Final = 60_000
AHEAD_MS: Final = 600_000
# So many unverified claims may wait at a time: a flood of them must not go round and round on the ladder.
LAG_UNVERIFIED_MAX: Final = 100
_WITHHELD: Final = "withheld: the service's redact= failed; see fault.withheld in its log"

log = structlog.get_logger()


# Takes out of a fault what must not leave the service.
Redact = Callable[[Fault], Fault]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who handles: what faults say of the failing service, and what they do not.

    Attributes:
        service, instance, host, version: Who.
        redact: Returns a fault without what must not leave the service; None leaves them as they are.
    """

    service: str
    instance: str
    host: str
    version: str
    redact: Redact | None = None


class Outcomes:
    """Decides what follows for one service."""

    def __init__(self, *, identity: Identity, ambient: Ambient, retry: RetryPolicy) -> None:
        self._identity = identity
        self._ambient = ambient
        self._retry = retry
        self._back_at_ms: deque[int] = deque()

    def failed(self, handling: Handling, error: Exception) -> Verdict:
        """Return the verdict on an exception; `handling.fault` and, of requests, `handling.reply` are set."""
        handler = handling.handler
        policy = self._retry if handler is None else handler.retry or self._retry
        fault = Fault.of(error, handling.envelope, permanent=policy.is_permanent(error))
        if handler is None:
            # It failed before the handler, so the hop is the attempt; a run in this process more would change nothing.
            hop = handling.delivery.attempt
            handling.attempt = hop if fault.permanent else max(hop, 1 + policy.immediate)
        # What follows is decided by the fault as it is, whatever of it is told.
        fault = self._marked(fault, handling)
        handling.fault = told = self._redacted(fault)
        handling.failures += (Attempt(at_ms=self._ambient.now_ms(), error=told.error),)
        handling.said = _said_by(error, told)
        if handling.part is Part.REQUESTS:
            return self._failed_request(handling, told, error)
        if handling.part is Part.FAULTS and isinstance(error, UnknownMessageError):
            return Skip(
                code="unheard", reason="no on_fault for this command; its dead letter is with the service that failed"
            )
        return self._in_time(handling, policy.decide(fault, jitter=self._ambient.jitter()))

    def came_back(self, handling: Handling) -> Verdict | None:
        """Return what to do with a request that a worker took and never settled; None: run it.

        The queue of requests counts no deliveries, so the message counts them itself. Back for the first time it takes
        the rung as a second attempt and runs once more; back from that one too, its caller is told: it may be what
        kills its workers.
        """
        verified = handling.verified
        if handling.part is not Part.REQUESTS or not handling.delivery.redelivered or verified is None:
            return None
        handling.attempt = attempt = handling.delivery.attempt
        if attempt > 1:
            return self.failed(handling, RuntimeError("its worker died or was stopped twice while it had this request"))
        waits = self._ambient.now_ms() + 2 * FIRST_RUNG_MS < verified.expires_at_ms
        # With less time left it goes round until its deadline at most.
        return Retry(delay_s=FIRST_RUNG_S) if waits else None

    def refused(self, handling: Handling, error: SealError) -> Verdict:
        """Return where a delivery goes that could not be believed or read."""
        evidence = error.evidence if isinstance(error.evidence, Verified) else None
        match error.disposition:
            case Disposition.UNAUTHENTIC:
                handling.is_forged = True
                return Skip(code=error.code, reason=str(error))
            case Disposition.SKIPPED | Disposition.DUPLICATE:
                return Skip(code=error.code, reason=str(error))
            case Disposition.LAG:
                return self._lagging(handling, error, evidence)
            case Disposition.EXPIRED:
                return self._expired(handling, error, evidence)
            case Disposition.CONTENT if handling.verified is not None:
                return self.failed(handling, error)
            case _:
                handling.verified = handling.verified or evidence
                return Refuse(code=error.code, reason=str(error))

    def _in_time(self, handling: Handling, decision: Retry | Bury) -> Verdict:
        """Bury at once what would come back only after it has expired; a replay lives as long as its wrapper."""
        verified = handling.verified
        if isinstance(decision, Bury) or verified is None or handling.replayed_by is not None:
            return decision
        if self._ambient.now_ms() + decision.delay_s * 1000 > verified.expires_at_ms:
            return Bury(reason="would expire before its next attempt")
        return decision

    def _failed_request(self, handling: Handling, fault: Fault, error: Exception) -> Verdict:
        """Answer the caller at once; only what another replica may know walks on while its caller waits."""
        verified = handling.verified
        if verified is None:
            return Refuse(code="request", reason=fault.reason)
        waits = self._ambient.now_ms() + 2 * FIRST_RUNG_MS < verified.expires_at_ms
        if isinstance(error, UnknownMessageError) and waits:
            return Retry(delay_s=FIRST_RUNG_S)
        handling.envelope = handling.envelope or verified.envelope()
        handling.reply_codec = CODEC_MSGPACK if handling.handler is None else contract_of(handling.handler.model).codec
        handling.reply = pack_plain({"fault": fault.public().to_map()}, handling.reply_codec)
        return Ack()

    def _lagging(self, handling: Handling, error: SealError, evidence: Verified | None) -> Verdict:
        """Wait for a newer trust bundle or for this clock, but not for long: claims may be forged."""
        is_ahead = evidence is not None and isinstance(error, StaleMessageError)
        patience_ms = AHEAD_MS if is_ahead else LAG_MS
        handling.verified = handling.verified or evidence
        since_ms = handling.delivery.first_failed_ms
        # A first failure in the future is another replica's clock, or a claim: the next hop says now instead.
        in_time = since_ms is None or self._ambient.now_ms() - since_ms < patience_ms
        if in_time and (evidence is not None or self._may_wait()):
            return Defer(delay_s=FIRST_RUNG_S, reason=str(error))
        handling.is_forged = evidence is None
        verdict = Skip if evidence is None else Refuse
        return verdict(code=error.code, reason=str(error))

    def _may_wait(self) -> bool:
        """Take one of the places for unverified claims until its holder is back from the rung, if one is free."""
        now_ms = self._ambient.now_ms()
        while self._back_at_ms and self._back_at_ms[0] <= now_ms:
            self._back_at_ms.popleft()
        if len(self._back_at_ms) >= LAG_UNVERIFIED_MAX:
            return False
        self._back_at_ms.append(now_ms + FIRST_RUNG_MS)
        return True

    def _expired(self, handling: Handling, error: SealError, evidence: Verified | None) -> Verdict:
        """Bury what was worth keeping; nobody waits any more for the answer to an expired request."""
        if evidence is None or handling.part not in (Part.COMMANDS, Part.EVENTS):
            return Skip(code=error.code, reason=str(error))
        handling.verified = handling.verified or evidence
        handling.original = handling.original or handling.delivery.body
        handling.attempt = handling.delivery.attempt
        fault = Fault.of(error, permanent=True).marked(error="expired")
        handling.fault = self._marked(fault, handling)
        handling.said = fault.reason
        return Bury(reason="expired")

    def _redacted(self, fault: Fault) -> Fault:
        """Return what is told of a fault; of one that the service's own function cannot redact only the error."""
        redact = self._identity.redact
        if redact is None:
            return fault
        try:
            told = redact(fault)
            if isinstance(told, Fault):
                return told
            reason = f"returned {type(told).__name__}"
        except Exception as error:  # noqa: BLE001 - an application's function may raise anything
            reason = type(error).__name__
        log.error("fault.withheld", service=self._identity.service, error=fault.error, reason=reason)
        return fault.marked(reason=_WITHHELD, fields={}, chain=(), trace="")

    def _marked(self, fault: Fault, handling: Handling) -> Fault:
        now_ms = self._ambient.now_ms()
        verified = handling.verified
        return fault.marked(
            service=self._identity.service,
            instance=self._identity.instance,
            host=self._identity.host,
            service_version=self._identity.version,
            handler="" if handling.handler is None else handling.handler.name,
            message_name="" if verified is None else verified.name,
            message_version=1 if verified is None else verified.version,
            message_id="" if verified is None else str(verified.id),
            attempts=handling.attempt,
            replays=handling.replays,
            first_failed_at_ms=handling.delivery.first_failed_ms or now_ms,
            last_failed_at_ms=now_ms,
        )


def _said_by(error: Exception, fault: Fault) -> str | None:
    """Return the words of a `Reject` or of this library; others may hold the values that they are about."""
    is_ours = isinstance(error, MessagingError) and not isinstance(error, RemoteError | RemoteFailure)
    return fault.reason if is_ours else None
