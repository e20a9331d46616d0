"""The pending requests of one instance: id → future, and the queue their answers come back to.

A reply is looked up before its signature is checked and the entry is removed only after success, so a forged reply
cannot consume the place of the true one (docs/spec.md, "Replies").

The queue lives on one node of the broker. While that is down nothing makes it exist anywhere else, so the instance
takes a new name, and with it a queue on the node that it is connected to; what it had asked ends at its deadline.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from uuid import UUID

import structlog

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope
from messaging.core.topology import Names
from messaging.errors import SealError
from messaging.security.open import Opener
from messaging.security.verified import ExpectedReply
from messaging.transports.base import Delivery, LinkState, Subscription, Transport

__all__ = ["Replies", "RequestConfirm", "new_instance"]

# Replies are settled soon after they arrive, so this bounds memory, not concurrency.
_PREFETCH: Final = 512
# Nobody waits for an acknowledgement, and what comes again for want of one is unmatched: so they are said together,
# beside the way of a request. What is large is let go of at once.
_SETTLE_AT: Final = 64
_SETTLE_WITHIN_S: Final = 0.02
_HELD_MAX_BYTES: Final = 16 * 1024
# A queue that is merely not consumed yet, after a reconnect, is so within less, on a busy machine too: whoever moves
# gives up the answers that are on their way.
_DARK_S: Final = 10.0

log = structlog.get_logger()


def new_instance(ambient: Ambient) -> str:
    """Return a name for one process, or one of its reply queues: 16 hex digits."""
    return ambient.new_id().hex[16:]


class RequestConfirm:
    """What a request is told of its own publish: a failure ends the wait for the answer, a confirm adds nothing to it.

    The answer may well come before the confirm, and proves more.
    """

    __slots__ = ("_answer",)

    def __init__(self, answer: asyncio.Future[Envelope]) -> None:
        self._answer = answer

    def done(self) -> bool:
        """Whether the answer is there, or nobody waits for it."""
        return self._answer.done()

    def set_result(self, _result: None, /) -> None:
        """Take that the broker has the request."""

    def set_exception(self, exception: Exception, /) -> None:
        """End the wait: the request reached nobody."""
        if not self._answer.done():
            self._answer.set_exception(exception)


class Replies:
    """The reply queue of one instance; it is declared on the first request."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        names: Names,
        transport: Transport,
        opener: Opener,
        ambient: Ambient,
    ) -> None:
        self.queue = names.reply_queue(service, instance)
        self._service = service
        self._instance = instance
        self._names = names
        self._transport = transport
        self._ambient = ambient
        self._dark_since_s: float | None = None
        self._opener = opener
        # Several of one id are a question that was repeated before its answer came; each has an answer of its own.
        self._pending: dict[UUID, list[tuple[ExpectedReply, asyncio.Future[Envelope]]]] = {}
        self._opening = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._unsettled: list[Delivery] = []
        self._settling: asyncio.TimerHandle | None = None
        self.unmatched = 0

    def __len__(self) -> int:
        return len(self._pending)

    async def open(self) -> None:
        """Make the reply queue exist and listen to it; only the first call does something, while its node is there."""
        subscription = self._subscription
        if subscription is not None:
            if subscription.is_live:
                self._dark_since_s = None
                return
            if not self._is_homeless():
                return
        async with self._opening:
            if subscription is not None and self._subscription is subscription:
                await self._leave(subscription)
            if self._subscription is None:
                await self._transport.declare(self._names.of_replies(self._service, self._instance))
                self._subscription = await self._transport.consume(self.queue, self._arrived, prefetch=_PREFETCH)

    async def addressed(self, request: Envelope) -> Envelope:
        """Open, and return the request with the queue that its answer can reach: that may have moved meanwhile."""
        await self.open()
        return request if request.reply_to == self.queue else replace(request, reply_to=self.queue)

    async def _leave(self, subscription: Subscription) -> None:
        """Take a new name; the old queue goes by itself, half an hour after its node is back."""
        self._subscription, self._dark_since_s = None, None
        self._instance, before = new_instance(self._ambient), self.queue
        self.queue = self._names.reply_queue(self._service, self._instance)
        log.warning("replies.moved", queue=self.queue, before=before)
        await subscription.cancel()

    def _is_homeless(self) -> bool:
        """Whether the broker has been there for a while and does not feed this queue all the same."""
        if self._transport.state.link not in (LinkState.CONNECTED, LinkState.BLOCKED):
            self._dark_since_s = None
            return False
        now_s = self._ambient.monotonic_s()
        if self._dark_since_s is None:
            self._dark_since_s = now_s
        return now_s - self._dark_since_s >= _DARK_S

    @contextmanager
    def expecting(self, request_id: UUID, expected: ExpectedReply) -> Iterator[asyncio.Future[Envelope]]:
        """Register a request while its answer is awaited."""
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        waiting, entry = self._pending.setdefault(request_id, []), (expected, future)
        waiting.append(entry)
        try:
            yield future
        finally:
            waiting.remove(entry)
            if not waiting:
                del self._pending[request_id]

    async def aclose(self) -> None:
        """Stop listening; pending requests end at their deadlines or with their tasks."""
        if self._subscription is not None:
            await self._subscription.cancel()
        self._settle()

    def _settle(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
        unsettled, self._unsettled = self._unsettled, []
        for delivery in unsettled:
            delivery.ack()

    def _settle_soon(self, delivery: Delivery) -> None:
        self._unsettled.append(delivery)
        if len(self._unsettled) >= _SETTLE_AT or len(delivery.body) > _HELD_MAX_BYTES:
            self._settle()
        elif self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_WITHIN_S, self._settle)

    def _arrived(self, delivery: Delivery) -> None:
        self._settle_soon(delivery)
        request_id = self._opener.peek_reply(delivery.body)
        pending = () if request_id is None else self._pending.get(request_id, ())
        refusal: SealError | None = None
        for expected, future in pending:
            if future.done():
                continue
            try:
                envelope = self._opener.decrypt(self._opener.verify_reply(delivery.body, expected))
            except SealError as error:
                refusal = error
                continue
            future.set_result(envelope)
            return
        self.unmatched += 1
        if refusal is None:
            log.debug("reply.unmatched", queue=self.queue)
        else:
            log.debug("reply.refused", queue=self.queue, code=refusal.code)
