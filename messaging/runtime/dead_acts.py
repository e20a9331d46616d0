"""`DeadActs`: what one pass does with the letters that it takes: replay them, or discard them.

Order of a replay: publish, confirmed by the broker; record it, confirmed; then acknowledge the letter. Order of a
discard: record it, then acknowledge. One pass never replays a message twice: one that fails again meanwhile is left for
the next pass.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.core.dead_letter import DeadLetter
from messaging.core.envelope import CODEC_RAW, Envelope, Kind
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, MessagingError, TopologyConflictError
from messaging.runtime.audit import PassRecord
from messaging.runtime.dead_queue import Found
from messaging.runtime.dead_reports import Tally
from messaging.runtime.failpoint import Step
from messaging.runtime.publisher import Publisher
from messaging.runtime.replaying import Replay
from messaging.transports.base import Transport

__all__ = ["DeadActs", "Errand"]

REPLAY_LIFETIME_MS: Final = 24 * 3_600_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What an operator is about.

    Attributes:
        operator: Who.
        service: Where it failed.
        reason: Why.
        force: Whether even what is recorded as done shall run.
        dry_run: Whether nothing is done but counting.
    """

    operator: str
    service: str
    reason: str
    force: bool = False
    dry_run: bool = False


class DeadActs:
    """The acts of one operator's pass over the dead letters of one service.

    Args:
        errand: Who, where, why.
        publisher, transport, names, ambient: Of the operator.
        tally: Counts them.
        record: Keeps who did it, signed, where there is an audit stream.
        reach: Told of each step, for tests of crashes.
    """

    def __init__(
        self,
        *,
        errand: Errand,
        publisher: Publisher,
        transport: Transport,
        names: Names,
        ambient: Ambient,
        tally: Tally,
        record: PassRecord,
        reach: Callable[[Step], None],
    ) -> None:
        self._errand = errand
        self._service = errand.service
        self._publisher = publisher
        self._transport = transport
        self._names = names
        self._ambient = ambient
        self._tally = tally
        self._record = record
        self._reach = reach
        self._begun: dict[bytes, str] = {}
        self._done: set[str] = set()
        self._copies: list[Found] = []
        self._targets: set[str] = set()

    def is_new(self, found: Found) -> bool:
        """Tell whether this pass has not had the message yet.

        It may come twice: because it failed again meanwhile, or because the same failure was buried twice by a crash.
        The second copy of one failure goes with the first one.
        """
        letter = found.letter
        begun = self._begun.get(letter.leaf)
        if begun is None:
            self._begun[letter.leaf] = letter.id
            return True
        if begun == letter.id and not self._errand.dry_run:
            self._copies.append(found)
        return False

    def settle_copies(self) -> None:
        """Take copies away whose first one was replayed."""
        copies, self._copies = self._copies, []
        for found in copies:
            if found.letter.id in self._done:
                found.take()
                found.settle()
                self._tally.repeated += 1
                log.info("dead_letter.repeated", id=found.letter.id, service=self._service)

    def replaying(self, found: Found) -> Callable[[], Awaitable[None]]:
        """Return the act of replaying a letter."""
        if not self._errand.dry_run:
            found.take()
        return lambda: self._replay(found)

    def discarding(self, found: Found) -> Callable[[], Awaitable[None]]:
        """Return the act of taking a letter away for good."""
        if not self._errand.dry_run:
            found.take()
        return lambda: self._discard(found)

    async def _discard(self, found: Found) -> None:
        letter = found.letter
        if self._errand.dry_run:
            self._tally.succeeded(letter)
            return
        try:
            await self._record.note("discarded", letter)
        except MessagingError as error:
            found.keep()
            self._tally.failed_with(error)
        else:
            log.warning("dead_letter.discarded", **self._described(letter))
            found.settle()
            self._tally.succeeded(letter)

    async def _replay(self, found: Found) -> None:
        letter = found.letter
        if self._errand.dry_run:
            self._tally.succeeded(letter)
            return
        if self._tally.stopped is not None:
            found.keep()
            return
        try:
            self._reach(Step.BEFORE_REPLAY)
            await self._emit(letter)
            self._reach(Step.AFTER_REPLAY)
            await self._record.note("replayed", letter)
        except MessagingError as error:
            log.warning("dead_letter.unreplayed", id=letter.id, service=self._service, reason=str(error))
            found.keep()
            self._tally.failed_with(error)
        else:
            log.info("dead_letter.replayed", **self._described(letter))
            found.settle()
            self._done.add(letter.id)
            self._tally.succeeded(letter)
            self._reach(Step.AFTER_LETTER)

    async def _emit(self, letter: DeadLetter) -> None:
        if letter.kind is None or letter.message_id is None:
            raise ConfigurationError(f"dead letter {letter.id} cannot be replayed: {letter.why_not}")
        queue = self._names.queue(self._service, "commands" if letter.kind is Kind.COMMAND else "events")
        await self._find(queue)
        fault = letter.fault
        content = Replay(
            original=letter.original,
            reason=self._errand.reason,
            force=self._errand.force,
            replays=fault.replays + 1,
            attempts=fault.attempts,
        )
        now_ms = self._ambient.now_ms()
        wrapper = Envelope(
            id=self._ambient.new_id(),
            kind=Kind.REPLAY,
            name=letter.message_name,
            version=letter.message_version,
            sender=self._errand.operator,
            audience=self._service,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + REPLAY_LIFETIME_MS,
            payload=letter.original,
            codec=CODEC_RAW,
            correlation_id=letter.correlation_id,
            causation_id=letter.message_id,
            bind=letter.leaf,
            headers=content.headers(),
            slot=letter.slot,
        )
        await self._publisher.emit(wrapper, key=queue)

    async def _find(self, queue: str) -> None:
        """Look once whether the queue is there: what is published to a missing one lands among the dead letters."""
        if queue in self._targets:
            return
        if await self._transport.depth(queue) is None:
            raise TopologyConflictError(
                f"there is no queue {queue!r} to give it back to: start {self._service}, "
                "or run `messaging topology apply`"
            )
        self._targets.add(queue)

    def _described(self, letter: DeadLetter) -> dict[str, str]:
        return {
            "id": letter.id,
            "service": self._service,
            "message_name": letter.message_name,
            "message_id": str(letter.message_id),
            "operator": self._errand.operator,
            "reason": self._errand.reason,
        }
