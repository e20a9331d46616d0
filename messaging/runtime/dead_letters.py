"""`DeadLetters`: list, group, replay and discard what failed, as an operator (docs/failure.md, "Dead letters").

A pass looks at what the queue held when it started and at no more, so a refilling queue cannot make it endless. Nothing
is taken away before what replaces it is confirmed: a crash at any step leaves each letter replayed or still dead, at
worst both, and the inbox absorbs that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.core.dead_letter import Act, DeadLetter, Group, Selection, group, plan
from messaging.core.envelope import CODEC_RAW, Envelope, Kind
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, MessagingError
from messaging.runtime.letters import LetterReader
from messaging.runtime.publisher import Publisher
from messaging.runtime.replaying import Replay
from messaging.security.open import Opener
from messaging.transports.base import Delivery, Transport

__all__ = ["DeadLetters", "DiscardReport", "ReplayProgress", "ReplayReport"]

REPLAY_LIFETIME_MS: Final = 24 * 3_600_000
# A queue that says it holds more than arrives within this time has been emptied by somebody else.
_QUIET_S: Final = 2.0
_EVERYTHING: Final = Selection()

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """How far a pass is: letters to take, taken well, taken badly."""

    total: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a pass did.

    Attributes:
        looked_at: Letters that the queue held.
        replayed: Letters that were replayed (or, of a dry run, would be).
        failed: Letters whose replay failed; they are still dead.
        kept: Letters that were not taken.
        stopped_because: Why the pass ended early, if it did.
        letters: What was replayed.
    """

    looked_at: int
    replayed: int
    failed: int
    kept: int
    stopped_because: str | None
    letters: tuple[DeadLetter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardReport:
    """What a discard did."""

    looked_at: int
    discarded: int
    kept: int
    letters: tuple[DeadLetter, ...]


class _Pass:
    """What one pass holds; each letter is settled once, and what was not goes back."""

    def __init__(self, found: Sequence[tuple[DeadLetter, Delivery]]) -> None:
        self.letters = [letter for letter, _ in found]
        self._deliveries = dict(enumerate(delivery for _, delivery in found))
        self._places = {id(letter): place for place, letter in enumerate(self.letters)}

    def planned(
        self, selection: Selection, *, now_ms: int, limit: int | None = None, replaying: bool = True
    ) -> list[DeadLetter]:
        """Return what the plan takes, oldest first."""
        acts = plan(self.letters, selection, now_ms=now_ms, limit=limit, replaying=replaying)
        taken = [letter for letter, act in zip(self.letters, acts, strict=True) if act is Act.TAKE]
        return sorted(taken, key=lambda letter: letter.died_at_ms)

    def settle(self, letter: DeadLetter) -> None:
        """Take the letter away for good."""
        self._deliveries.pop(self._places[id(letter)]).ack()

    def give_back(self) -> None:
        """Return everything that was not settled."""
        for delivery in self._deliveries.values():
            delivery.give_back()
        self._deliveries.clear()


class _Run:
    """The tally of one replay."""

    def __init__(self, *, total: int, stop_after: int, on_progress: Callable[[ReplayProgress], None] | None) -> None:
        self.done: list[DeadLetter] = []
        self.failed = 0
        self.stopped: str | None = None
        self._total = total
        self._stop_after = stop_after
        self._in_a_row = 0
        self._on_progress = on_progress

    def succeeded(self, letter: DeadLetter) -> None:
        """Count a letter that was replayed."""
        self.done.append(letter)
        self._in_a_row = 0
        self._tell()

    def failed_with(self, error: MessagingError) -> None:
        """Count a failure; too many in a row stop the pass."""
        self.failed += 1
        self._in_a_row += 1
        if self._in_a_row >= self._stop_after:
            self.stopped = f"{self._in_a_row} failures in a row, the last: {error}"
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(ReplayProgress(total=self._total, done=len(self.done), failed=self.failed))


class DeadLetters:
    """The dead letters of any service, with the rights of one operator."""

    def __init__(
        self,
        *,
        operator: str,
        transport: Transport,
        opener: Opener,
        publisher: Publisher,
        names: Names,
        ambient: Ambient,
    ) -> None:
        self._operator = operator
        self._transport = transport
        self._reader = LetterReader(opener)
        self._publisher = publisher
        self._names = names
        self._ambient = ambient

    async def list(self, service: str, selection: Selection = _EVERYTHING) -> list[DeadLetter]:
        """Return the selected dead letters of a service, oldest first, decrypted where this operator may read.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
        """
        async with self._reading(service) as found:
            now_ms = self._ambient.now_ms()
            letters = [letter for letter in found.letters if selection.matches(letter, now_ms=now_ms)]
        return sorted(letters, key=lambda letter: letter.died_at_ms)

    async def groups(self, service: str, selection: Selection = _EVERYTHING) -> Sequence[Group]:
        """Return the selected dead letters grouped by fingerprint, largest group first."""
        return group(await self.list(service, selection))

    async def replay(
        self,
        service: str,
        selection: Selection = _EVERYTHING,
        *,
        reason: str,
        limit: int | None = None,
        rate_per_s: float | None = None,
        canary: int | None = None,
        force: bool = False,
        stop_after: int = 10,
        dry_run: bool = False,
        on_progress: Callable[[ReplayProgress], None] | None = None,
    ) -> ReplayReport:
        """Give the selected messages back to the one queue that failed, oldest first.

        Args:
            service: The service that failed.
            selection: Which.
            reason: Why; the consumer's log and the handler's context show it.
            limit: At most so many.
            rate_per_s: At most so many per second.
            canary: Replay so many and stop: look at them before you go on.
            force: Run even what is recorded as done, if policy grants it.
            stop_after: Stop after so many failures in a row.
            dry_run: Say what would be done, do nothing.
            on_progress: Called after each letter.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
            TopologyConflictError: another pass is under way.
        """
        bound = min((bound for bound in (limit, canary) if bound is not None), default=None)
        queue = self._names.queue(service, "dead")
        async with self._transport.lock(self._names.lock(queue)), self._reading(service) as found:
            taken = found.planned(selection, now_ms=self._ambient.now_ms(), limit=bound)
            run = _Run(total=len(taken), stop_after=stop_after, on_progress=on_progress)
            for letter in taken:
                if not dry_run:
                    await self._replay_one(found, letter, run, reason=reason, force=force)
                    await asyncio.sleep(0.0 if rate_per_s is None else 1 / rate_per_s)
                else:
                    run.succeeded(letter)
                if run.stopped is not None:
                    break
            return ReplayReport(
                looked_at=len(found.letters),
                replayed=len(run.done),
                failed=run.failed,
                kept=len(found.letters) - len(run.done),
                stopped_because=run.stopped,
                letters=tuple(run.done),
            )

    async def discard(self, service: str, selection: Selection, *, reason: str, dry_run: bool = False) -> DiscardReport:
        """Remove the selected dead letters for good; each is logged with the operator and the reason."""
        queue = self._names.queue(service, "dead")
        async with self._transport.lock(self._names.lock(queue)), self._reading(service) as found:
            taken = found.planned(selection, now_ms=self._ambient.now_ms(), replaying=False)
            for letter in taken:
                if not dry_run:
                    self._discard_one(found, letter, reason=reason)
            return DiscardReport(
                looked_at=len(found.letters),
                discarded=len(taken),
                kept=len(found.letters) - len(taken),
                letters=tuple(taken),
            )

    async def _replay_one(self, found: "_Pass", letter: DeadLetter, run: "_Run", *, reason: str, force: bool) -> None:
        try:
            await self._emit_replay(letter, reason=reason, force=force)
        except MessagingError as error:
            log.warning("dead_letter.unreplayed", id=letter.id, service=letter.service, reason=str(error))
            run.failed_with(error)
        else:
            found.settle(letter)
            run.succeeded(letter)

    def _discard_one(self, found: "_Pass", letter: DeadLetter, *, reason: str) -> None:
        found.settle(letter)
        log.warning(
            "dead_letter.discarded",
            id=letter.id,
            service=letter.service,
            message_name=letter.message_name,
            message_id=str(letter.message_id),
            operator=self._operator,
            reason=reason,
        )

    @asynccontextmanager
    async def _reading(self, service: str) -> AsyncIterator["_Pass"]:
        """Hold what the queue held at the start; what is not settled inside goes back in one go."""
        deliveries = await self._taken_out(service)
        found = _Pass([(self._reader.read(service, delivery), delivery) for delivery in deliveries])
        try:
            yield found
        finally:
            found.give_back()

    async def _taken_out(self, service: str) -> Sequence[Delivery]:
        queue = self._names.queue(service, "dead")
        depth = await self._transport.depth(queue)
        if depth is None:
            raise ConfigurationError(
                f"no dead-letter queue of {service!r}: the service has not yet started here, or runs under another "
                "namespace than MESSAGING_NAMESPACE"
            )
        deliveries: list[Delivery] = []
        arrived = asyncio.Event()

        def collect(delivery: Delivery) -> None:
            deliveries.append(delivery)
            arrived.set()

        if depth.messages:
            subscription = await self._transport.consume(queue, collect, prefetch=0)
            while len(deliveries) < depth.messages and await _set_within(arrived, _QUIET_S):
                arrived.clear()
            await subscription.cancel()
        # What came in meanwhile is for the next pass, or a refilling queue would make this one endless.
        for late in deliveries[depth.messages :]:
            late.give_back()
        return deliveries[: depth.messages]

    async def _emit_replay(self, letter: DeadLetter, *, reason: str, force: bool) -> None:
        if letter.kind is None or letter.message_id is None:
            raise ConfigurationError(f"dead letter {letter.id} cannot be replayed: {letter.why_not}")
        now_ms = self._ambient.now_ms()
        fault = letter.fault
        content = Replay(
            original=letter.original,
            reason=reason,
            force=force,
            replays=fault.replays + 1,
            attempts=fault.attempts,
        )
        wrapper = Envelope(
            id=self._ambient.new_id(),
            kind=Kind.REPLAY,
            name=letter.message_name,
            version=letter.message_version,
            sender=self._operator,
            audience=letter.service,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + REPLAY_LIFETIME_MS,
            payload=letter.original,
            codec=CODEC_RAW,
            correlation_id=letter.correlation_id,
            causation_id=letter.message_id,
            bind=letter.leaf,
            headers=content.headers(),
        )
        part = "commands" if letter.kind is Kind.COMMAND else "events"
        await self._publisher.emit(wrapper, key=self._names.queue(letter.service, part))
        log.info(
            "dead_letter.replayed",
            id=letter.id,
            service=letter.service,
            message_name=letter.message_name,
            message_id=str(letter.message_id),
            operator=self._operator,
            reason=reason,
        )


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
