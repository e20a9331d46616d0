"""Reading one dead letter: from the bytes in the queue to what an operator sees. Executes nothing.

Freshness does not count, keys of any state verify and the state is shown; what cannot be verified is listed as such and
is not replayable (docs/spec.md, "Dead queue").
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from messaging.core.codec import unpack
from messaging.core.dead_letter import DeadLetter
from messaging.core.envelope import Kind
from messaging.core.fault import Fault
from messaging.core.topology import is_way_back
from messaging.errors import MalformedError, MessagingError, SealError
from messaging.runtime.replaying import read_replay
from messaging.security.bundle import KeyState
from messaging.security.content import split_fault
from messaging.security.open import Opener
from messaging.security.verified import Verified, VerifiedDead
from messaging.transports.base import Death

__all__ = ["Letter", "LetterReader"]


class Letter(Protocol):
    """What reading needs of a delivery."""

    @property
    def body(self) -> bytes:
        """The bytes as they came."""

    @property
    def exchange(self) -> str:
        """The exchange through which it came here."""

    @property
    def routing_key(self) -> str:
        """What it was addressed to there."""

    @property
    def attempt(self) -> int:
        """The unsigned count of attempts."""

    @property
    def first_failed_ms(self) -> int | None:
        """The unsigned time of the first failure."""

    @property
    def deaths(self) -> tuple[Death, ...]:
        """The broker's claims about why it was moved."""


@dataclass(frozen=True, slots=True)
class _Buried:
    original: bytes
    inner: Verified
    fault: Fault
    died_at_ms: int


class LetterReader:
    """Reads dead letters with the keys of one operator."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def read(self, service: str, delivery: Letter) -> DeadLetter:
        """Return the letter; never raises for what the bytes hold."""
        try:
            found = self._opener.verify_dead(delivery.body, service=service)
        except SealError as error:
            return _unverified(service, delivery, error)
        try:
            buried = self._raw(service, delivery, found) if found.is_raw else self._with_fault(found)
            return self._described(service, found, self._unwrapped(buried))
        except MessagingError as error:
            return _unverified(service, delivery, error)

    def _raw(self, service: str, delivery: Letter, found: VerifiedDead) -> "_Buried":
        return _Buried(delivery.body, found.letter, _broker_fault(service, delivery), died_at_ms=0)

    def _with_fault(self, found: VerifiedDead) -> "_Buried":
        original, plain = split_fault(self._opener.decrypt(found.letter))
        inner = self._opener.verify_archived(original)
        if inner.leaf != found.letter.bind:
            raise MalformedError("the fault embeds another message than it is bound to")
        return _Buried(original, inner, Fault.from_map(plain), died_at_ms=found.letter.issued_at_ms)

    def _unwrapped(self, buried: "_Buried") -> "_Buried":
        """Return the original of an operator's replay that was itself buried, with its history."""
        if buried.inner.kind is not Kind.REPLAY:
            return buried
        replay = read_replay(self._opener.decrypt(buried.inner))
        original = self._opener.verify_archived(replay.original)
        if original.leaf != buried.inner.bind:
            raise MalformedError("the replay embeds another message than it is bound to")
        fault = buried.fault.marked(replays=replay.replays, attempts=buried.fault.attempts + replay.attempts)
        return _Buried(replay.original, original, fault, died_at_ms=buried.died_at_ms)

    def _described(self, service: str, found: VerifiedDead, buried: "_Buried") -> DeadLetter:
        inner, fault = buried.inner, buried.fault
        payload: object | None = None
        unreadable: str | None = None
        try:
            opened = self._opener.decrypt(inner)
            payload = unpack(opened.payload, opened.codec)
        except MessagingError as error:
            unreadable = str(error)
        why_not = _why_not(found, inner)
        return DeadLetter(
            id=found.letter.id.hex,
            service=service,
            is_verified=True,
            fault=fault,
            original=buried.original,
            leaf=inner.leaf,
            message_name=inner.name,
            message_version=inner.version,
            message_id=inner.id,
            correlation_id=inner.correlation_id,
            kind=inner.kind,
            slot=inner.slot,
            sender=inner.sender,
            issued_at_ms=inner.issued_at_ms,
            died_at_ms=buried.died_at_ms or fault.last_failed_at_ms or inner.issued_at_ms,
            payload=payload,
            unreadable_because=unreadable,
            key_state=inner.key_state.value,
            is_replayable=why_not is None,
            why_not=why_not,
        )


def _why_not(found: VerifiedDead, inner: Verified) -> str | None:
    if not found.is_replayable:
        return "the key that signed the dead letter is compromised"
    if inner.kind not in (Kind.COMMAND, Kind.EVENT):
        return f"a {inner.kind.word} is never replayed"
    if inner.key_state is KeyState.COMPROMISED:
        return "the key that signed it is compromised"
    return None


def _unverified(service: str, delivery: Letter, error: MessagingError) -> DeadLetter:
    """Return a letter of which nothing may be believed; its id is a digest of its bytes."""
    reason = f"unverified: {error}"
    return DeadLetter(
        id=hashlib.sha256(delivery.body).hexdigest()[:32],
        service=service,
        is_verified=False,
        fault=Fault(error="unverified", reason=reason[:1000], service=service, attempts=0),
        why_not=reason,
    )


def _broker_fault(service: str, delivery: Letter) -> Fault:
    """Return why the broker or a crash fuse moved the message here: a claim, for the broker's headers are unsigned."""
    death = delivery.deaths[0] if delivery.deaths else None
    if is_way_back(delivery.exchange, service):
        # The way back leads here when it has nowhere else to lead to (docs/topology.md, the alternate exchange).
        error, reason = "broker.no_queue", f"it was to come back to {delivery.routing_key}, which did not exist"
    elif death is None:
        error, reason = "crash_loop", "it came back unhandled again and again: its handler may kill the worker"
    else:
        error, reason = f"broker.{death.reason}", f"the broker moved it out of {death.queue} ({death.reason})"
    return Fault(
        error=error[:200],
        reason=reason[:1000],
        service=service,
        attempts=delivery.attempt,
        first_failed_at_ms=delivery.first_failed_ms,
        fingerprint=hashlib.sha256(error.encode()).hexdigest()[:16],
    )
