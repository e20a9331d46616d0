"""`AuditTrail`: what operators did, signed, in the audit stream of the namespace, where there is one.

The stream is opt-in (`messaging topology apply --audit`). Where it exists, an act that cannot be recorded is not
finished: a letter leaves the dead letters only once the record of the act is confirmed. What waits is written together.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from messaging.core.ambient import Ambient
from messaging.core.dead_letter import DeadLetter
from messaging.core.sealed import Label, Route
from messaging.core.topology import Names
from messaging.errors import ConnectionLostError, MessagingError
from messaging.security.seal import Sealer
from messaging.transports.base import Transport

__all__ = ["AuditStream", "AuditTrail", "PassRecord"]

# With ids and names of a letter at some 300 bytes, far below what one record may hold.
LETTERS_MAX: Final = 200
_Fields = Mapping[str, object]
T = TypeVar("T")


class AuditStream:
    """The way into the stream: signs and publishes, confirmed."""

    def __init__(
        self, *, sealer: Sealer, transport: Transport, names: Names, ambient: Ambient, timeout_s: float
    ) -> None:
        self._sealer = sealer
        self._transport = transport
        self._route = Route(exchange=names.audit, routing_key="")
        self._ambient = ambient
        self._timeout_s = timeout_s

    async def attest(self, fields: _Fields) -> None:
        """Publish a record.

        Raises:
            TransportError: it could not be published.
        """
        label = Label(message_id=self._ambient.new_id().hex, type="audit")
        await self._transport.publish(self._sealer.attest(fields), self._route, label, timeout_s=self._timeout_s)


class PassRecord:
    """The records of one pass; without an audit stream they go nowhere.

    Args:
        stream: Takes them; None: nothing is kept.
        common: Stands in each record: who, why, which pass.
        now_ms: The time.
    """

    def __init__(self, stream: AuditStream | None, common: _Fields, *, now_ms: Callable[[], int]) -> None:
        self._stream = stream
        self._common = common
        self._now_ms = now_ms
        self._waiting: list[tuple[str, DeadLetter, asyncio.Future[None]]] = []
        self._is_writing = False

    async def say(self, act: str, **fields: object) -> None:
        """Record something about the pass as a whole.

        Raises:
            TransportError: it could not be recorded.
        """
        if self._stream is not None:
            await self._stream.attest({**self._common, "act": act, "at_ms": self._now_ms(), **fields})

    async def note(self, act: str, letter: DeadLetter) -> None:
        """Record an act on a letter, and return once that is confirmed; notes that come meanwhile share a record.

        Raises:
            TransportError: it could not be recorded.
        """
        if self._stream is None:
            return
        noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((act, letter, noted))
        if not self._is_writing:
            await self._write_all()
        await noted

    async def _write_all(self) -> None:
        self._is_writing = True
        try:
            # Notes of one turn of the event loop shall not need a record each.
            await asyncio.sleep(0)
            while self._waiting:
                batch, self._waiting = self._waiting[:LETTERS_MAX], self._waiting[LETTERS_MAX:]
                await self._write(batch)
        finally:
            self._is_writing = False
            left, self._waiting = self._waiting, []
            for _, _, noted in left:
                _fail(noted, ConnectionLostError("the record of the act was interrupted; the letter is still dead"))

    async def _write(self, batch: list[tuple[str, DeadLetter, asyncio.Future[None]]]) -> None:
        try:
            for act in sorted({act for act, _, _ in batch}):
                await self.say(act, letters=[_described(letter) for which, letter, _ in batch if which == act])
        except MessagingError as error:
            for _, _, noted in batch:
                _fail(noted, error)
        except BaseException:
            self._waiting += batch
            raise
        for _, _, noted in batch:
            if not noted.done():
                noted.set_result(None)


class AuditTrail:
    """The audit stream of one namespace, for one operator."""

    def __init__(
        self, stream: AuditStream, *, operator: str, transport: Transport, names: Names, ambient: Ambient
    ) -> None:
        self._stream = stream
        self._operator = operator
        self._transport = transport
        self._names = names
        self._ambient = ambient

    @asynccontextmanager
    async def opened(
        self, verb: str, *, service: str, reason: str, ended: Callable[[], _Fields], **fields: object
    ) -> AsyncIterator[PassRecord]:
        """Record that a pass began and, with what `ended` returns, how it ended.

        Args:
            verb: `replay` or `discard`.
            service: Whose dead letters.
            reason: Why.
            ended: What came of it.
            **fields: What else is worth a record.

        Raises:
            TransportError: there is an audit stream, but it takes no records; nothing has been done then.
        """
        is_kept = await self._transport.depth(self._names.audit) is not None
        common = {"operator": self._operator, "pass": self._ambient.new_id().hex, "service": service, "reason": reason}
        record = PassRecord(self._stream if is_kept else None, common, now_ms=self._ambient.now_ms)
        await record.say(f"{verb}.begun", **fields)
        try:
            yield record
        finally:
            await record.say(f"{verb}.ended", **ended())


def _fail(noted: "asyncio.Future[None]", error: Exception) -> None:
    if not noted.done():
        noted.set_exception(error)


def _described(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "message_id": None if letter.message_id is None else str(letter.message_id),
        "message_name": letter.message_name,
        "sender": letter.sender,
        "error": letter.fault.error[:100],
    }
