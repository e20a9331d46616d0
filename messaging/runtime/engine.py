"""`Engine`: everything that consumes for one service: the consumer, the settler and an intake for each queue."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from messaging.core.retry import RetryPolicy
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.runtime.admission import Intake
from messaging.runtime.breaker import Breaker
from messaging.runtime.consumer import Consumer
from messaging.runtime.failpoint import Failpoint
from messaging.runtime.handling import Part
from messaging.runtime.inbox_rows import InboxRows
from messaging.runtime.injection import check_resources
from messaging.runtime.middleware import Middleware
from messaging.runtime.outcome import Identity
from messaging.runtime.partitions import PartitionIntake, Sorting, check_patience, partitioned
from messaging.runtime.parts import Parts
from messaging.runtime.relay import Relay
from messaging.runtime.router import Router
from messaging.runtime.run_history import RunHistory
from messaging.runtime.schedules import Schedules
from messaging.runtime.seams import Seams
from messaging.runtime.settle import Settler
from messaging.runtime.spreading import Spreading
from messaging.runtime.staging import Outlets
from messaging.runtime.tasks import Tasks
from messaging.settings import Settings
from messaging.stores.base import Counting, Inbox, Store, StoreUnavailableError
from messaging.stores.failed_runs import RemembersRuns

__all__ = ["Engine", "EngineLimits"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Bounds of consuming: deliveries at once per queue, deadlines in seconds, rows of one sender in an hour."""

    prefetch: int
    handler_timeout_s: float
    publish_timeout_s: float
    drain_timeout_s: float
    inbox_alarm_rows: int = 1_000_000

    @classmethod
    def of(cls, settings: Settings) -> "EngineLimits":
        """Return the bounds that an installation decided."""
        return cls(
            prefetch=settings.prefetch,
            handler_timeout_s=settings.handler_timeout_s,
            publish_timeout_s=settings.publish_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            inbox_alarm_rows=settings.inbox_alarm_rows,
        )


class Engine:
    """Consumes for one service."""

    def __init__(
        self,
        parts: Parts,
        router: Router,
        *,
        identity: Identity,
        inbox: Inbox,
        store: Store | None = None,
        retry: RetryPolicy,
        limits: EngineLimits,
        middleware: Sequence[Middleware] = (),
        seams: Seams | None = None,
        failpoint: Failpoint | None = None,
    ) -> None:
        names = parts.names
        outbox = None if store is None else store.outbox(identity.service)
        if failpoint is not None:
            inbox, outbox = failpoint.inbox(inbox), None if outbox is None else failpoint.outbox(outbox)
        self._service = identity.service
        self._transport = parts.transport
        self._drain_timeout_s = limits.drain_timeout_s
        self._rungs = [names.rung(self._service, delay_ms) for delay_ms in parts.subscriptions.rungs_ms]
        self._relaying = Tasks()
        self._purging = Tasks()
        self._scheduling = Tasks()
        self._store = store
        self._inbox_rows = (
            InboxRows(store, service=self._service, limit=limits.inbox_alarm_rows)
            if isinstance(store, Counting)
            else None
        )
        overrides = {} if seams is None else seams.overrides
        self._groupings = [handler.grouping for handler in router.handlers if handler.grouping is not None]
        self._prefetch = limits.prefetch
        self._plans = [handler.overridden(overrides) for handler in router.handlers]
        self._relay = (
            None
            if outbox is None
            else Relay(
                outbox,
                transport=parts.transport,
                owner=identity.instance,
                timeout_s=limits.publish_timeout_s,
            )
        )
        self._schedules = None if store is None else self._schedules_of(parts, store, seams)
        self._consumer = Consumer(
            parts,
            router,
            identity=identity,
            inbox=inbox,
            outlets=Outlets(parts.publisher, on_commit=self._note_commit),
            retry=retry,
            timeout_s=limits.handler_timeout_s,
            middleware=middleware,
            **({} if seams is None else {"around": seams.around}),
        )
        self._settler = Settler(
            service=self._service,
            names=names,
            publisher=parts.publisher,
            inbox=inbox,
            ambient=parts.ambient,
            timeout_s=limits.publish_timeout_s,
            history=RunHistory(store.failed_runs if isinstance(store, RemembersRuns) else None),
        )
        partitions: tuple[PartitionIntake, ...] = ()
        sorting: Sorting | None = None
        if parts.subscriptions.partitions is not None:
            check_patience(router, retry)
            sorting, partitions = partitioned(
                parts,
                self._consumer,
                self._settler,
                width=limits.prefetch,
                later=None if seams is None else seams.later,
            )
        intakes = tuple(
            Intake(
                part,
                names.queue(self._service, part.word),
                transport=parts.transport,
                consumer=sorting if sorting is not None and part is Part.COMMANDS else self._consumer,
                settler=self._settler,
                prefetch=limits.prefetch,
                breaker=self._breaker(part, router, retry, parts),
            )
            for part in _parts_of(parts.subscriptions)
        )
        self._partitions = partitions
        self._moving = Tasks()
        self._spreading = (
            Spreading(
                partitions,
                home=names.queue(self._service, Part.COMMANDS.word),
                transport=parts.transport,
                ambient=parts.ambient,
            )
            if partitions
            else None
        )
        self._all: tuple[Intake | PartitionIntake, ...] = (*intakes, *partitions)

    def _breaker(self, part: Part, router: Router, retry: RetryPolicy, parts: Parts) -> Breaker | None:
        """Return the breaker of a queue if anybody asks for one; callers of requests would only wait in vain."""
        asked = any((handler.retry or retry).break_after for handler in router.handlers)
        if not asked or part not in (Part.COMMANDS, Part.EVENTS):
            return None
        queue = parts.names.queue(self._service, part.word)
        return Breaker(queue, default=retry, monotonic_s=parts.ambient.monotonic_s)

    async def start(self, resources: Sequence[object]) -> None:
        """Begin to consume.

        Args:
            resources: What handlers find through their context.

        Raises:
            ConfigurationError: a handler asks for a resource that does not exist.
        """
        self._check_groups()
        check_resources(self._plans, resources, offered=() if self._store is None else self._store.offers)
        self._consumer.resources = resources
        if self._relay is not None and self._store is not None:
            self._relaying.spawn(self._relay.run(), name=f"{self._service} relay")
            self._purging.spawn(_purge(self._store), name=f"{self._service} purge")
        if self._inbox_rows is not None:
            self._purging.spawn(self._inbox_rows.run(), name=f"{self._service} inbox rows")
        if self._schedules is not None:
            self._scheduling.spawn(self._schedules.run(), name=f"{self._service} schedules")
        for intake in self._all:
            await intake.start()
        if self._spreading is not None:
            self._moving.spawn(self._spreading.run(), name=f"{self._service} spreading")

    async def drain(self) -> None:
        """Stop consuming and wait for running handlers; what overruns the bound is given back to its queue."""
        self._consumer.stopping.set()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._drain_timeout_s
        stops = (intake.stop(timeout_s=self._drain_timeout_s) for intake in self._all)
        if not all(await asyncio.gather(*stops)):
            log.warning("service.drain_timed_out", service=self._service, timeout_s=self._drain_timeout_s)
        await self._moving.cancel()
        await self._purging.cancel()
        await self._scheduling.cancel()
        if self._relay is not None:
            # What the last handlers committed leaves now, or with the next process.
            self._relay.finish()
            left_s = max(_LAST_RELAY_MIN_S, deadline_s - loop.time())
            await self._relaying.drain(timeout_s=min(left_s, _LAST_RELAY_S))
            await self._relaying.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being handled or relayed."""
        return not self.running and (self._relay is None or self._relay.is_idle)

    def _schedules_of(self, parts: Parts, store: Store, seams: Seams | None) -> Schedules:
        schedules = Schedules(
            store.schedule(self._service),
            service=self._service,
            publisher=parts.publisher,
            on_released=self._wake_relay,
            clock=None if seams is None else seams.ambient.now_ms,
        )
        parts.publisher.later = schedules
        if seams is not None:
            seams.on_schedules(schedules)
        return schedules

    def _check_groups(self) -> None:
        for grouping in self._groupings:
            if self._store is None:
                raise ConfigurationError(
                    f"{grouping.name}: group={grouping.size} needs a durable store: Service(…, store=SqlStore(engine))"
                )
            if grouping.size > self._prefetch:
                raise ConfigurationError(
                    f"{grouping.name}: group={grouping.size} is never full with prefetch={self._prefetch}; raise "
                    "MESSAGING_PREFETCH or lower the group"
                )

    def _note_commit(self) -> None:
        if self._relay is not None:
            self._relay.note_commit()

    def _wake_relay(self) -> None:
        if self._relay is not None:
            self._relay.wake()

    @property
    def running(self) -> int:
        """How many deliveries are being handled."""
        return sum(intake.running for intake in self._all)

    @property
    def resting(self) -> Mapping[str, int]:
        """Partition → how many deliveries it holds while all of them wait for a next try."""
        return {intake.queue: count for intake in self._partitions if (count := intake.resting)}

    @property
    def consumers(self) -> Mapping[str, bool]:
        """Queue → whether the broker is known to feed it."""
        return {intake.queue: intake.is_live for intake in self._all}

    @property
    def trouble(self) -> str | None:
        """Why deliveries are held, if they are."""
        return self._consumer.trouble

    @property
    def lag(self) -> str | None:
        """What is wrong when this service's trust bundle stays behind, if it does."""
        return self._consumer.lag

    @property
    def counts(self) -> Mapping[str, int]:
        """How many deliveries ended in which way."""
        return dict(self._settler.counts)

    @property
    def inbox_rows(self) -> Mapping[str, int]:
        """Sender → rows that it added to the durable inbox in an hour."""
        return {} if self._inbox_rows is None else self._inbox_rows.per_sender

    async def queues_are_empty(self) -> bool:
        """Tell whether nothing waits in the service's own queues and rungs."""
        for queue in (*self.consumers, *self._rungs):
            depth = await self._transport.depth(queue)
            if depth is not None and depth.messages:
                return False
        return True


_LAST_RELAY_S: Final = 5.0
# What is left to the relay when handlers took all the time there was.
_LAST_RELAY_MIN_S: Final = 1.0
_PURGE_EVERY_S: Final = 600.0


async def _purge(store: Store) -> None:
    """Remove old rows now and then, for ever."""
    while True:
        try:
            removed = await store.purge()
            log.debug("inbox.purged", removed=removed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the table must not grow for ever
            known = isinstance(error, StoreUnavailableError)
            log.warning("inbox.unpurged", reason=str(error) if known else f"a defect: {type(error).__name__}")
        await asyncio.sleep(_PURGE_EVERY_S)


def _parts_of(subscriptions: Subscriptions) -> list[Part]:
    wanted = (
        (Part.COMMANDS, bool(subscriptions.commands)),
        (Part.EVENTS, bool(subscriptions.events)),
        (Part.REQUESTS, bool(subscriptions.requests)),
        (Part.FAULTS, subscriptions.faults),
    )
    return [part for part, is_wanted in wanted if is_wanted]
