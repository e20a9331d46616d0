"""`DeadLetters`: list, group, replay and discard what failed, as an operator (docs/failure.md, "Dead letters").

A pass looks at what the queue held when it started and at no more, so a refilling queue cannot make it endless. Nothing
is taken away before what replaces it is confirmed: a crash at any step leaves each letter replayed or still dead, at
worst both, and the inbox absorbs that. What a pass needs of memory does not depend on the length of the queue.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.dead_letter import Act, DeadLetter, Group, Groups, Selection, plan
from messaging.core.topology import Names
from messaging.errors import PublishNotConfirmedError
from messaging.runtime.audit import AuditStream, AuditTrail, PassRecord
from messaging.runtime.dead_acts import DeadActs, Errand
from messaging.runtime.dead_queue import DeadQueue, Found
from messaging.runtime.dead_reports import DiscardReport, ReplayProgress, ReplayReport, Tally
from messaging.runtime.dead_window import Window
from messaging.runtime.failpoint import Failpoint, Step
from messaging.runtime.letters import LetterReader
from messaging.runtime.oldest import Oldest
from messaging.runtime.publisher import Publisher
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.transports.base import Transport

__all__ = ["DeadLetters", "DiscardReport", "ReplayProgress", "ReplayReport"]

# Up to so many letters a pass finds the oldest ones, whatever their place; beyond, it takes them as the queue has them.
SORTED_MAX: Final = 256
# Longer than a publish takes to be confirmed or given up.
_LAST_REPLAYS_S: Final = 15.0
AUDIT_TIMEOUT_S: Final = 10.0
_EVERYTHING: Final = Selection()


class DeadLetters:
    """The dead letters of any service, with the rights of one operator."""

    def __init__(
        self,
        *,
        operator: str,
        transport: Transport,
        opener: Opener,
        sealer: Sealer,
        publisher: Publisher,
        names: Names,
        ambient: Ambient,
        failpoint: Failpoint | None = None,
    ) -> None:
        self._operator = operator
        self._transport = transport
        self._reader = LetterReader(opener)
        self._publisher = publisher
        self._names = names
        self._ambient = ambient
        self._failpoint = failpoint
        stream = AuditStream(
            sealer=sealer, transport=transport, names=names, ambient=ambient, timeout_s=AUDIT_TIMEOUT_S
        )
        self._audit = AuditTrail(stream, operator=operator, transport=transport, names=names, ambient=ambient)

    async def each(self, service: str, selection: Selection = _EVERYTHING) -> AsyncGenerator[DeadLetter, None]:
        """Yield the selected dead letters of a service as the queue has them, decrypted where this operator may read.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
        """
        async with self._reading(service) as queue, aclosing(queue.letters()) as letters:
            now_ms = self._ambient.now_ms()
            async for found in letters:
                if selection.matches(found.letter, now_ms=now_ms):
                    yield found.letter

    async def list(
        self, service: str, selection: Selection = _EVERYTHING, *, limit: int | None = None
    ) -> list[DeadLetter]:
        """Return the selected dead letters of a service, oldest first; with a limit, the oldest ones.

        All that is returned is in memory together: of a long queue use `each`, or a limit.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
        """
        oldest = Oldest[DeadLetter](limit, age_of=_died_at)
        async with aclosing(self.each(service, selection)) as letters:
            async for letter in letters:
                oldest.offer(letter)
        return oldest.first_to_last()

    async def groups(self, service: str, selection: Selection = _EVERYTHING) -> Sequence[Group]:
        """Return the selected dead letters grouped by fingerprint, largest group first."""
        groups = Groups()
        async with aclosing(self.each(service, selection)) as letters:
            async for letter in letters:
                groups.add(letter)
        return groups.largest_first()

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
        """Give the selected messages back to the one queue that failed.

        Up to 256 of them it takes the oldest first; more, or all, in the order of the queue. Interrupted, it waits for
        the replays that are on their way; the same call later goes on with what is left.

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
            on_progress: Called after each act, and now and then while only looking.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
            TopologyConflictError: another pass is under way.
            ConnectionLostError: the broker stopped to deliver what it holds.
        """
        errand = Errand(operator=self._operator, service=service, reason=reason, force=force, dry_run=dry_run)
        bound = min((bound for bound in (limit, canary) if bound is not None), default=None)
        async with self._alone(service), self._reading(service) as queue:
            tally = Tally(total=queue.depth, stop_after=stop_after, on_progress=on_progress)
            rate = None if dry_run else rate_per_s
            async with (
                self._recording("replay", errand, tally) as record,
                self._acting(errand, tally, record) as acts,
                Window.opened(rate_per_s=rate, patience_s=_LAST_REPLAYS_S) as window,
                aclosing(self._chosen(queue, selection, tally, acts, bound=bound)) as chosen,
            ):
                async for found in chosen:
                    await window.begin(acts.replaying(found))
                    if tally.stopped is not None:
                        break
            self._reach(Step.BEFORE_RETURN)
        return tally.replay_report()

    async def discard(self, service: str, selection: Selection, *, reason: str, dry_run: bool = False) -> DiscardReport:
        """Remove the selected dead letters for good; each is logged with the operator and the reason.

        Raises:
            ConfigurationError: the service has no dead-letter queue.
            TopologyConflictError: another pass is under way.
            TransportError: there is an audit stream, and it does not take the record.
        """
        errand = Errand(operator=self._operator, service=service, reason=reason, dry_run=dry_run)
        async with self._alone(service), self._reading(service) as queue:
            tally = Tally(total=queue.depth, stop_after=1)
            async with (
                self._recording("discard", errand, tally) as record,
                self._acting(errand, tally, record) as acts,
                Window.opened(rate_per_s=None, patience_s=_LAST_REPLAYS_S) as window,
                aclosing(queue.letters()) as letters,
            ):
                now_ms = self._ambient.now_ms()
                async for found in letters:
                    tally.looked()
                    if plan(found.letter, selection, now_ms=now_ms, replaying=False) is Act.TAKE:
                        await window.begin(acts.discarding(found))
                    if tally.stopped is not None:
                        break
        if tally.stopped is not None:
            raise PublishNotConfirmedError(f"stopped after {tally.done} discards: {tally.stopped}")
        return tally.discard_report()

    async def _chosen(
        self, queue: DeadQueue, selection: Selection, tally: Tally, acts: DeadActs, *, bound: int | None
    ) -> AsyncGenerator[Found, None]:
        """Yield what is to be replayed, taken."""
        now_ms = self._ambient.now_ms()
        oldest = None if bound is None or bound > SORTED_MAX else Oldest[Found](bound, age_of=_found_age)
        left = bound
        async with aclosing(queue.letters()) as letters:
            async for found in letters:
                tally.looked()
                if plan(found.letter, selection, now_ms=now_ms) is Act.KEEP or not acts.is_new(found):
                    continue
                if oldest is not None:
                    oldest.offer(found)
                    continue
                yield found
                left = None if left is None else left - 1
                if left == 0:
                    return
        for found in () if oldest is None else oldest.first_to_last():
            yield found

    def _recording(self, verb: str, errand: Errand, tally: Tally) -> AbstractAsyncContextManager[PassRecord]:
        if errand.dry_run:
            return nullcontext(PassRecord(None, {}, now_ms=self._ambient.now_ms))
        return self._audit.opened(
            verb, service=errand.service, reason=errand.reason, ended=tally.record, is_forced=errand.force
        )

    @asynccontextmanager
    async def _acting(self, errand: Errand, tally: Tally, record: PassRecord) -> AsyncIterator[DeadActs]:
        acts = DeadActs(
            errand=errand,
            publisher=self._publisher,
            transport=self._transport,
            names=self._names,
            ambient=self._ambient,
            tally=tally,
            record=record,
            reach=self._reach,
        )
        yield acts
        acts.settle_copies()

    def _alone(self, service: str) -> AbstractAsyncContextManager[None]:
        return self._transport.lock(self._names.lock(self._names.queue(service, "dead")))

    @asynccontextmanager
    async def _reading(self, service: str) -> AsyncIterator[DeadQueue]:
        queue = self._names.queue(service, "dead")
        async with DeadQueue.reading(
            self._transport, queue, service=service, read=lambda delivery: self._reader.read(service, delivery)
        ) as reading:
            yield reading

    def _reach(self, step: Step) -> None:
        if self._failpoint is not None:
            self._failpoint.reach(step)


def _died_at(letter: DeadLetter) -> int:
    return letter.died_at_ms


def _found_age(found: Found) -> int:
    return found.letter.died_at_ms
