"""`Publisher`: the only way out. route → envelope → encode → seal → sign with the tick → transport, confirmed.

Every call has a deadline. A command that reaches no queue is `UnroutableError`; an event that nobody hears is no error.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog

from messaging.core.ambient import Ambient
from messaging.core.codec import encode_model
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Command, Event, Message, Request, slot_among
from messaging.core.schedule import Cancellation, Draft, due_ms
from messaging.core.topology import Names, routing_key
from messaging.errors import (
    ConfigurationError,
    PublishNotConfirmedError,
    RequestTimeoutError,
    UnroutableError,
)
from messaging.runtime.answers import answer_of, reply_envelope
from messaging.runtime.bulk import BULK_BYTES, Bulk
from messaging.runtime.delays import Delays
from messaging.runtime.later import Later
from messaging.runtime.plans import Plan, Plans
from messaging.runtime.replies import Replies, RequestConfirm
from messaging.runtime.routes import Routes
from messaging.runtime.signing import BATCH_MAX, TickSigner
from messaging.runtime.steps import steps_are_logged
from messaging.security.seal import Sealer, Unsigned
from messaging.security.verified import ExpectedReply
from messaging.stores.base import Outgoing, Sealing
from messaging.transports.base import Confirm, Transport
from messaging.transports.deadlines import Deadlines, finite_s

__all__ = ["Limits", "Publisher", "Staged"]

R = TypeVar("R")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Deadlines of what goes out, seconds, and how many messages may share a signature."""

    publish_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    lifetime_s: float = 7 * 24 * 3600.0
    signature_batch_max: int = BATCH_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A message for an outbox, which seals it at its end; `sealing` is None for an event that nobody subscribes."""

    message_id: UUID
    sealing: Sealing | None


class Publisher:
    """Sends what one service or operator says.

    Args:
        makes_levels: Whether delay levels that are missing are made, instead of `messaging topology apply`.

    Attributes:
        later: Where messages wait that are not to be sent at once.
    """

    def __init__(
        self,
        *,
        sender: str,
        sealer: Sealer,
        transport: Transport,
        names: Names,
        ambient: Ambient,
        replies: Replies,
        limits: Limits,
        on_published: Callable[[Message, Envelope], None] | None = None,
        makes_levels: bool = False,
    ) -> None:
        self._sender = sender
        self._sealer = sealer
        self._bulk = Bulk()
        self._plans = Plans()
        self._signer = TickSigner(sealer, batch_max=limits.signature_batch_max, on_tick=transport.flush)
        self._transport = transport
        self._names = names
        self._ambient = ambient
        self._replies = replies
        self._limits = limits
        self._on_published = on_published
        self._deadlines = Deadlines()
        self._routes = Routes(names, ambient=ambient)
        # What waits is told when it is sent; kept only where somebody is to be told.
        self._untold: dict[UUID, Message] = {}
        self.later: Later = Delays(
            seal=self.sealed,
            transport=transport,
            names=names,
            ambient=ambient,
            lifetime_s=limits.lifetime_s,
            longest_life_ms=sealer.longest_life_ms,
            makes_levels=makes_levels,
        )

    async def send(
        self,
        command: Command,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        key: object = None,
    ) -> UUID:
        """Send a command and return its id once the broker has it, or once it is on the schedule.

        `key` orders it instead of the contract's.

        Raises:
            UnroutableError: nobody handles it.
            PublishNotConfirmedError: refused or not confirmed in time; carries the id for a repetition.
        """
        if deliver_at is not None and (due := self.due_ms(deliver_at)) is not None:
            draft = self.drafted(command, cause=cause, message_id=message_id, expires_in_s=expires_in_s, key=key)
            return await self._put_off(draft, due, timeout_s)
        plan = self._plans.of(command, Kind.COMMAND)
        envelope = self._envelope(command, plan, cause, message_id, expires_in_s, key)
        await self._out(envelope, plan.routing_key, timeout_s)
        self._note(envelope)
        self._tell(command, envelope)
        return envelope.id

    async def publish(
        self,
        event: Event,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
    ) -> UUID:
        """Publish an event and return its id once the broker has it; nobody listening is no error. See `send`."""
        if deliver_at is not None and (due := self.due_ms(deliver_at)) is not None:
            draft = self.drafted(event, cause=cause, message_id=message_id, expires_in_s=expires_in_s)
            return await self._put_off(draft, due, timeout_s)
        plan = self._plans.of(event, Kind.EVENT)
        envelope = self._envelope(event, plan, cause, message_id, expires_in_s)
        if not self._sealer.recipients(envelope):
            log.info("message.unheard", message_name=envelope.name, message_id=str(envelope.id))
            self._tell(event, envelope)
            return envelope.id
        try:
            await self._out(envelope, plan.routing_key, timeout_s)
            self._note(envelope)
        except UnroutableError:
            # The bundle names subscribers, but none of them has ever started here.
            log.info("message.unheard", message_name=envelope.name, message_id=str(envelope.id))
        self._tell(event, envelope)
        return envelope.id

    async def staged(
        self,
        message: Command | Event,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        expires_in_s: float | None = None,
        key: object = None,
    ) -> Staged:
        """Prepare a command or event for an outbox instead of publishing it: only its signature is missing."""
        plan = self._plans.of(message, _kind_of(message))
        envelope = self._envelope(message, plan, cause, message_id, expires_in_s, key)
        out = await self._staged(envelope)
        self._tell(message, envelope)
        return Staged(message_id=envelope.id, sealing=out)

    def due_ms(self, deliver_at: datetime | None) -> int | None:
        """Return when a message is to be sent, Unix milliseconds, or None for now; raises as `core.schedule` does."""
        return None if deliver_at is None else due_ms(deliver_at, now_ms=self._ambient.now_ms())

    def drafted(
        self,
        message: Command | Event,
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        expires_in_s: float | None = None,
        key: object = None,
    ) -> Draft:
        """Return a message that will be sealed at its time, checked as if that were now.

        Raises:
            PolicyError: the policy does not allow it.
            MessageTooLargeError: the payload is beyond the cap.
        """
        plan = self._plans.of(message, _kind_of(message))
        envelope = self._envelope(message, plan, cause, message_id, expires_in_s, key)
        if envelope.kind is Kind.COMMAND or self._sealer.recipients(envelope):
            # Sealed for nobody: what cannot be sent is to fail here and not at night.
            self._sealer.prepare(envelope, routing_key=routing_key(envelope.name, envelope.version))
        if self._on_published is not None:
            self._untold[envelope.id] = message
        return Draft(envelope=envelope)

    async def sealed(self, draft: Draft, *, life_ms: int | None = None) -> Outgoing | None:
        """Seal what was for later; None for an event that nobody subscribes.

        Args:
            draft: The message.
            life_ms: How long it lives from now on, milliseconds; None: as long as it was given.
        """
        envelope = draft.issued(self._ambient.now_ms(), life_ms=life_ms)
        sealing = await self._staged(envelope)
        out = None if sealing is None else await sealing()
        message = self._untold.pop(envelope.id, None)
        if message is not None:
            self._tell(message, envelope)
        return out

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Take back what waits for its time; see `Later`."""
        return await self.later.cancel(message_id, timeout_s=self._limits.publish_timeout_s)

    async def request(
        self,
        request: Request[R],
        *,
        cause: Envelope | None = None,
        message_id: UUID | None = None,
        timeout_s: float | None = None,
    ) -> R:
        """Ask and return the answer.

        Raises:
            UnroutableError: nobody answers this request.
            RequestTimeoutError: no answer by the deadline; the outcome is unknown.
            RemoteError: the handler failed; or the failure class that the request declares with `raises=`.
        """
        deadline_s = finite_s(timeout_s, self._limits.request_timeout_s)
        plan = self._plans.of(request, Kind.REQUEST)
        envelope = self._envelope(request, plan, cause, message_id, deadline_s)
        try:
            with self._deadlines.of_task(deadline_s):
                answer = await self._exchange(envelope, plan.routing_key, deadline_s)
        except (TimeoutError, PublishNotConfirmedError) as error:
            log.warning("request.timed_out", message_name=envelope.name, message_id=str(envelope.id))
            raise RequestTimeoutError(
                f"no answer to {envelope.type} within {deadline_s:g} s: is {envelope.audience} running? "
                "(see `messaging doctor`); the outcome is unknown, repeat with the same message_id",
                message_id=envelope.id,
            ) from error
        result: R = answer_of(plan.contract, answer)
        return result

    async def reply(self, request: Envelope, payload: bytes, *, leaf: bytes, codec: int) -> None:
        """Answer a request; a requester that is gone is no error.

        Args:
            request: The request.
            payload: Encoded `{"ok": …}` or `{"fault": …}`.
            leaf: The request's leaf, 32 bytes.
            codec: How the payload is encoded.
        """
        envelope = reply_envelope(
            request,
            payload,
            leaf=leaf,
            codec=codec,
            sender=self._sender,
            message_id=self._ambient.new_id(),
            now_ms=self._ambient.now_ms(),
        )
        try:
            await self._out(envelope, request.reply_to or "")
            self._note(envelope)
        except UnroutableError:
            log.info("reply.unheard", message_name=request.name, message_id=str(request.id))

    async def emit(self, envelope: Envelope, *, key: str, timeout_s: float | None = None) -> None:
        """Publish a complete envelope, such as a fault or a replay, under a routing key of its own."""
        await self._out(envelope, key, timeout_s)
        self._note(envelope)

    async def _put_off(self, draft: Draft, due: int, timeout_s: float | None) -> UUID:
        timeout_s = finite_s(timeout_s, self._limits.publish_timeout_s)
        await self.later.put(draft, due_ms=due, timeout_s=timeout_s)
        return draft.envelope.id

    async def _staged(self, envelope: Envelope) -> Sealing | None:
        if envelope.kind is Kind.EVENT and not self._sealer.recipients(envelope):
            log.info("message.unheard", message_name=envelope.name, message_id=str(envelope.id))
            return None
        key = routing_key(envelope.name, envelope.version)
        unsigned = await self._bulk.prepared(self._sealer, envelope, key=key)
        route = self._routes.of(envelope, key)
        if envelope.kind is Kind.EVENT:
            # The relay cannot tell an event from a command: nobody listening is no error.
            route = replace(route, mandatory=False)
        # Not the key itself: the same says the broker, and nobody must wonder what is in this column.
        lane = None if envelope.slot is None else f"{envelope.audience}/{envelope.slot}"
        return partial(self._signer.sealing, unsigned, route=route, label=self._routes.label(envelope), lane=lane)

    def _tell(self, message: Message, envelope: Envelope) -> None:
        if self._on_published is not None:
            self._on_published(message, envelope)

    def _note(self, envelope: Envelope) -> None:
        if steps_are_logged():
            log.debug(
                "message.published",
                kind=envelope.kind.word,
                message_name=envelope.name,
                message_id=str(envelope.id),
                correlation_id=str(envelope.correlation_id),
            )

    def _envelope(
        self,
        message: Message,
        plan: Plan,
        cause: Envelope | None,
        message_id: UUID | None,
        lifetime_s: float | None,
        key: object = None,
    ) -> Envelope:
        if message_id is None:
            message_id = self._ambient.new_id()
        elif not isinstance(message_id, UUID):
            raise ConfigurationError(f"message_id={message_id!r} is no UUID: pass what `send` returned, or none")
        now_ms = self._ambient.now_ms()
        lifetime_s = finite_s(lifetime_s, self._limits.lifetime_s)
        if lifetime_s <= 0:
            raise ConfigurationError(f"a lifetime of {lifetime_s:g} s: use more than 0 seconds")
        contract = plan.contract
        # By position, which takes a third of the time: one for every message. It starts its own correlation.
        envelope = Envelope(
            message_id, contract.kind, contract.name, contract.version, self._sender, plan.audience, now_ms,
            now_ms + (int(lifetime_s * 1000) or 1), encode_model(message, contract.codec), contract.codec, message_id,
            reply_to=self._replies.queue if contract.kind is Kind.REQUEST else None,
        )  # fmt: skip
        if contract.key is not None or key is not None:
            envelope = replace(envelope, slot=slot_among(message, key))
        return envelope if cause is None else envelope.caused_by(cause)

    async def _exchange(self, envelope: Envelope, key: str, deadline_s: float) -> Envelope:
        envelope = await self._replies.addressed(envelope)
        unsigned = await self._bulk.prepared(self._sealer, envelope, key=key)
        expected = ExpectedReply(
            mid=envelope.id.bytes,
            leaf=unsigned.leaf,
            aud=envelope.audience,
            typ=envelope.type,
            rto=self._replies.queue,
        )
        with self._replies.expecting(envelope.id, expected) as answer:
            # Nobody waits for the request's own confirm: the answer proves that it arrived. The caller's deadline comes
            # first, so that impatience with an answer is not taken for a channel that confirms nothing.
            self._start(envelope, unsigned, key, deadline_s + _CONFIRM_SLACK_S, RequestConfirm(answer))
            return await answer

    def _out(self, envelope: Envelope, key: str, timeout_s: float | None = None) -> Awaitable[None]:
        """Seal it, which may raise, and have it sent; what is returned waits for the broker's confirm."""
        timeout_s = finite_s(timeout_s, self._limits.publish_timeout_s)
        if len(envelope.payload) > BULK_BYTES:
            return self._out_aside(envelope, key, timeout_s)
        unsigned = self._sealer.prepare(envelope, routing_key=key)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start(envelope, unsigned, key, timeout_s, outcome)
        return outcome

    async def _out_aside(self, envelope: Envelope, key: str, timeout_s: float) -> None:
        unsigned = await self._bulk.prepared(self._sealer, envelope, key=key)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start(envelope, unsigned, key, timeout_s, outcome)
        await outcome

    def _start(self, envelope: Envelope, unsigned: Unsigned, key: str, timeout_s: float, outcome: Confirm) -> None:
        """Have it signed with this tick and sent at its end; `outcome` hears what becomes of it."""
        route, label = self._routes.of(envelope, key), self._routes.label(envelope)
        self._signer.pass_on(unsigned, self._transport.submit, route, label, timeout_s, outcome, waiting=outcome)


_CONFIRM_SLACK_S = 1.0


def _kind_of(message: Command | Event) -> Kind:
    return Kind.COMMAND if isinstance(message, Command) else Kind.EVENT
