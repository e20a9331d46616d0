"""`Consumer`: the only way in. A delivery becomes a verdict; nothing here publishes or acknowledges.

verify (shape, audience, expiry, policy, signature) → reserve the id → decrypt → resolve → model → middleware → handler.
The steps and their order are those of docs/spec.md, "Order of checks". Only `process`
and `_run` catch `Exception`: whatever a handler raises becomes a `Fault`, and its policy decides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from messaging.core.codec import decode_model, encode_value
from messaging.core.envelope import Envelope, Kind
from messaging.core.fault import Fault
from messaging.core.inbox import Decision, RowState
from messaging.core.message import contract_of
from messaging.core.retry import Ack, Bury, Defer, Refuse, Retry, RetryPolicy, Skip, Verdict
from messaging.errors import Disposition, MalformedError, SealError
from messaging.runtime.bulk import BULK_BYTES, Bulk
from messaging.runtime.context import Context
from messaging.runtime.handling import Handling, Part
from messaging.runtime.middleware import Call, Middleware
from messaging.runtime.outcome import Identity, Outcomes
from messaging.runtime.parts import Parts
from messaging.runtime.replaying import Replaying, read_replay
from messaging.runtime.router import FIRST_RUNG_MS, Handler, Router
from messaging.runtime.staging import Outlets
from messaging.runtime.trust_lag import TrustLag
from messaging.runtime.ways import LEASE_SLACK_S, Way, Ways
from messaging.security.content import split_fault
from messaging.security.verified import Verified
from messaging.stores.base import GroupUndoneError, Inbox, InboxKey, Reservation, StoreUnavailableError
from messaging.transports.deadlines import Deadlines

__all__ = ["Consumer", "GivenBack"]

# A message that came back this often without a verdict kills its workers (docs/failure.md, "Crash fuse").
FUSE_DELIVERIES: Final = 10
FIRST_RUNG_S: Final = FIRST_RUNG_MS / 1000
_HOLD_FIRST_S: Final = 0.25
_HOLD_MAX_S: Final = 5.0
HOLD_LIMIT_S: Final = 20 * 60.0
# Undone because of another delivery in the same transaction: again at once, and no attempt of this one.
_ALONE: Final = Retry(delay_s=0.0, in_process=True)
_ANSWERED: Final = frozenset({Decision.DROP, Decision.OTHER_BYTES})

log = structlog.get_logger()


class GivenBack(Exception):
    """The delivery goes back to the queue unhandled."""


def _itself(handler: Handler) -> Call:
    return handler.plan.call


class Consumer:
    """Turns deliveries of one service into verdicts."""

    def __init__(
        self,
        parts: Parts,
        router: Router,
        *,
        identity: Identity,
        inbox: Inbox,
        outlets: Outlets,
        retry: RetryPolicy,
        timeout_s: float,
        middleware: Sequence[Middleware] = (),
        around: Callable[[Handler], Call] = _itself,
    ) -> None:
        self._service = identity.service
        self._outcomes = Outcomes(identity=identity, ambient=parts.ambient, retry=retry)
        self._router = router
        self._opener = parts.opener
        self._bulk = Bulk()
        self._inbox = inbox
        self._outlets = outlets
        self._deadlines = Deadlines()
        self._ways = Ways(router, around=around, middleware=middleware, retry=retry, timeout_s=timeout_s)
        self._lagging = parts.lagging
        self._lag = TrustLag(parts.trust, ambient=parts.ambient)
        self._held: dict[int, str] = {}
        self.resources: Sequence[object] = ()
        self.stopping = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """Why deliveries are held now, if any is."""
        return next(iter(self._held.values()), None)

    @property
    def lag(self) -> str | None:
        """What is wrong when this service's trust bundle stays behind, if it does."""
        return self._lag.problem

    async def process(self, handling: Handling) -> Verdict:
        """Return what to do with a delivery; `handling` then holds what is known of it.

        Raises:
            GivenBack: local trouble outlasted its patience, or the service stops meanwhile.
        """
        if handling.delivery.delivery_count >= FUSE_DELIVERIES:
            return Bury(reason="crash_loop")
        try:
            early = await self._believe(handling) or self._outcomes.came_back(handling)
            verdict = await self._run(handling) if early is None else early
        except SealError as error:
            if error.disposition is Disposition.LAG:
                self._lagging.set()
            if isinstance(error.evidence, Verified):
                self._lag.note(error.evidence.bundle_version)
            verdict = self._outcomes.refused(handling, error)
        except GivenBack:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where anything a handler raises becomes data
            verdict = self._outcomes.failed(handling, error)
        if handling.holds_lease and (handling.fault is not None or not isinstance(verdict, Ack)):
            # Nothing that failed is kept, and no transaction stays open while the broker is asked.
            await self._inbox.undo(handling.lease)
        return verdict

    # ---- believe: verify, reserve, open

    async def _believe(self, handling: Handling) -> Verdict | None:
        """Verify, reserve and open; hold the delivery while the trouble is local. None means: run it."""
        try:
            return await self._open(handling)
        except (SealError, StoreUnavailableError) as error:
            trouble = _local(error)
        try:
            return await self._hold(handling, trouble)
        finally:
            self._held.pop(id(handling), None)

    async def _hold(self, handling: Handling, trouble: Exception) -> Verdict | None:
        patience_s, held_s = _HOLD_FIRST_S, 0.0
        while True:
            self._held[id(handling)] = str(trouble)
            log.warning("delivery.held", queue=handling.delivery.queue, reason=str(trouble))
            held_s += patience_s
            if held_s > HOLD_LIMIT_S or await self._stops_within(patience_s):
                raise GivenBack
            patience_s = min(2 * patience_s, _HOLD_MAX_S)
            try:
                return await self._open(handling)
            except (SealError, StoreUnavailableError) as error:
                trouble = _local(error)

    async def _stops_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self.stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _open(self, handling: Handling) -> Verdict | None:
        """Verify, reserve and open. None means: run it. Small bodies, the usual case, take no detour."""
        body, kinds, queue = handling.delivery.body, handling.part.kinds, handling.home or handling.delivery.queue
        is_small = len(body) <= BULK_BYTES
        try:
            if is_small:
                verified = self._opener.verify(body, kinds=kinds, queue=queue)
            else:
                verified = await self._bulk.verified(self._opener, body, kinds=kinds, queue=queue)
        except SealError as error:
            early = await self._expired(handling, error)
            if early is not None:
                return early
            raise
        self._lag.note(verified.header.ext.get("bv"))
        if verified.header.address.kind is Kind.REPLAY:
            return await self._open_replay(handling, verified)
        handling.verified = verified
        handling.reservation = reservation = await self._reserved(handling, verified)
        if reservation.decision is not Decision.RUN:
            return self._unreserved(handling, verified, reservation)
        handling.envelope = await self._decrypted(handling, verified)
        return None

    async def _expired(self, handling: Handling, error: SealError) -> Verdict | None:
        """Let what expired be buried, but not if it ran before; of a replay what is inside, to be replayed again."""
        late = error.evidence
        if error.disposition is not Disposition.EXPIRED or not isinstance(late, Verified):
            return None
        handling.reservation = reservation = await self._reserved(handling, late)
        if reservation.decision is not Decision.RUN:
            return self._unreserved(handling, late, reservation)
        if late.kind is Kind.REPLAY:
            replay = read_replay(self._opener.decrypt(self._opener.verify_archived(late.body)))
            inner = self._seen(replay.original, late)
            if inner.leaf == late.bind:
                handling.verified, handling.original = inner, replay.original
                handling.replays, handling.earlier_attempts = replay.replays, replay.attempts
        return None

    async def _open_replay(self, handling: Handling, outer: Verified) -> Verdict | None:
        replay = read_replay(self._opener.decrypt(outer))
        seen = self._seen(replay.original, outer)
        key = self._key(seen)
        failed = await self._inbox.state(key, leaf=seen.leaf) is RowState.FAILED
        inner = self._opener.verify_replayed(replay.original, outer, failed_before=failed, force=replay.force)
        handling.verified, handling.original = inner, replay.original
        handling.replayed_by, handling.replay_reason = outer.sender, replay.reason
        handling.replays, handling.earlier_attempts = replay.replays, replay.attempts
        reservation = await self._inbox.reserve_replay(
            key,
            leaf=inner.leaf,
            outer=self._key(outer),
            outer_leaf=outer.leaf,
            replaying=Replaying(in_window=True, force=replay.force),
            expires_at_ms=outer.expires_at_ms,
            lease_s=self._lease_s(inner),
        )
        handling.reservation = reservation
        if reservation.decision is not Decision.RUN:
            return _unrunnable(reservation.decision)
        handling.envelope = await self._decrypted(handling, inner)
        log.info("delivery.replaying", **handling.described(), reason=replay.reason)
        return None

    def _seen(self, original: bytes, outer: Verified) -> Verified:
        """Read whose original it is. The wrapper is authentic, so what is wrong inside is refused, never a forgery."""
        try:
            return self._opener.verify_archived(original)
        except SealError as error:
            error.evidence = outer
            if error.disposition is Disposition.UNAUTHENTIC:
                error.disposition = Disposition.REFUSED
            raise

    def _reserved(self, handling: Handling, verified: Verified) -> Awaitable[Reservation]:
        header, delivery = verified.header, handling.delivery
        handling.way = way = self._ways.find(header.address.kind, header.name, header.version)
        grouping = None if way is None else way.handler.grouping
        if grouping is not None and (delivery.attempt > 1 or delivery.delivery_count):
            # One that came back is alone with whatever it causes.
            grouping = None
        return self._inbox.reserve(
            self._key(verified),
            leaf=verified.leaf,
            expires_at_ms=header.exp,
            lease_s=LEASE_SLACK_S if way is None else way.lease_s,
            grouping=grouping,
        )

    def _unreserved(self, handling: Handling, verified: Verified, reservation: Reservation) -> Verdict:
        if reservation.decision in _ANSWERED and reservation.reply is not None:
            # The request was answered, but its caller may not have heard: the kept answer again, bound to this request.
            # A caller that repeats it seals it anew, so its bytes are others; they do not run all the same.
            handling.envelope = verified.envelope()
            handling.reply, handling.reply_codec = reservation.reply, contract_codec(self._router, verified)
            return Ack()
        return _unrunnable(reservation.decision)

    async def _decrypted(self, handling: Handling, verified: Verified) -> Envelope:
        try:
            if len(verified.body) <= BULK_BYTES:
                return self._opener.decrypt(verified)
            return await self._bulk.decrypted(self._opener, verified)
        except SealError as error:
            if error.disposition in (Disposition.LOCAL, Disposition.SKIPPED) and handling.reservation is not None:
                await self._inbox.release(handling.reservation)
                handling.reservation = None
            raise

    # ---- run

    async def _run(self, handling: Handling) -> Verdict:
        envelope = handling.envelope
        if envelope is None or handling.reply is not None:
            return Ack()
        message: Any
        if handling.part is Part.FAULTS:
            message, envelope = self._fault_message(handling, envelope)
            way = self._ways.resolve(Kind.FAULT, envelope.name, envelope.version)
        else:
            way = handling.way or self._ways.resolve(envelope.kind, envelope.name, envelope.version)
            message = decode_model(way.handler.model, envelope.payload, envelope.codec)
        handling.handler = way.handler
        handling.attempt = handling.delivery.attempt
        while True:
            verdict = await self._attempt(handling, way, message, envelope)
            if not (isinstance(verdict, Retry) and verdict.in_process):
                return verdict
            if verdict is not _ALONE:
                await asyncio.sleep(verdict.delay_s)
                handling.attempt += 1
            handling.reservation = await self._inbox.renew(handling.lease)
            if not handling.holds_lease:
                return _unrunnable(handling.reservation.decision)

    async def _attempt(self, handling: Handling, way: Way, message: Any, envelope: Envelope) -> Verdict:
        try:
            result = await self._call(handling, way, message, envelope)
            if way.is_request:
                self._answer(handling, way, result)
            await self._inbox.complete(handling.lease, reply=handling.reply)
        except GroupUndoneError:
            return _ALONE
        except Exception as error:  # noqa: BLE001 - becomes a fault; see the module's rule
            handling.reply = None
            return self._outcomes.failed(handling, error)
        handling.fault = None
        self._outlets.note_commit()
        return Ack()

    def _fault_message(self, handling: Handling, envelope: Envelope) -> tuple[Fault, Envelope]:
        original, plain = split_fault(envelope)
        if handling.verified is None:
            raise MalformedError("a fault that was not verified")
        command = self._opener.verify_own_original(original, handling.verified)
        return Fault.from_map(plain), command.envelope()

    async def _call(self, handling: Handling, way: Way, message: Any, envelope: Envelope) -> Any:
        unit = handling.lease.unit
        context = Context(
            envelope,
            self._outlets.of(unit),
            attempt=handling.attempt,
            resources=self.resources,
            unit=unit,
            replayed_by=handling.replayed_by,
            replay_reason=handling.replay_reason,
        )
        try:
            with self._deadlines.of_task(way.timeout_s) as deadline:
                return await way.call(message, context)
        except TimeoutError as error:
            if deadline.is_over:
                raise TimeoutError(f"the handler took longer than {way.timeout_s:g} s") from error
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this run: it awaited something that was cancelled. Given back it would go round for ever.
            raise RuntimeError("the handler awaited something that was cancelled") from error

    def _answer(self, handling: Handling, way: Way, result: Any) -> None:
        contract = contract_of(way.handler.model)
        handling.reply_codec = contract.codec
        if contract.reply is not None:
            handling.reply = encode_value(contract.reply, result, contract.codec)

    def _key(self, verified: Verified) -> InboxKey:
        return InboxKey(self._service, verified.header.address.sender, verified.id)

    def _lease_s(self, verified: Verified) -> float:
        way = self._ways.find(verified.kind, verified.name, verified.version)
        return LEASE_SLACK_S if way is None else way.lease_s


def contract_codec(router: Router, verified: Verified) -> int:
    """Return the codec in which answers to this request travel."""
    return contract_of(router.resolve(Kind.REQUEST, verified.name, verified.version).model).codec


def _local(error: SealError | StoreUnavailableError) -> SealError | StoreUnavailableError:
    """Return the error if it is this machine's trouble, which passes; raise it otherwise."""
    if isinstance(error, SealError) and error.disposition is not Disposition.LOCAL:
        raise error
    return error


def _unrunnable(decision: Decision) -> Verdict:
    match decision:
        case Decision.DEFER:
            return Defer(delay_s=FIRST_RUNG_S, reason="the same message is being handled")
        case Decision.REFUSE:
            return Refuse(code="duplicate", reason="the message ran already, or runs now; a replay of it needs force")
        case Decision.OTHER_BYTES:
            return Skip(code="duplicate.other_bytes", reason="other bytes were recorded under this id")
        case _:
            return Skip(code="duplicate", reason="the message ran already")
