"""`Service`: handlers, lifecycle and the ways to send. What users build on.

Starting: keys and trust → connect → topology → lifespan → consume. Stopping has one order: stop consuming → drain
running handlers → close the lifespan → flush and close the connection.

Example:
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    orders.run()
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Self

import structlog

from messaging.assembly import build, quieten, trust_file
from messaging.core.names import check_service, owner_of
from messaging.core.partition import check_partitions
from messaging.core.retry import RetryPolicy
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.runtime.engine import Engine, EngineLimits
from messaging.runtime.failpoint import Failpoint
from messaging.runtime.health import Health, judge_health
from messaging.runtime.middleware import Middleware
from messaging.runtime.outcome import Identity, Redact
from messaging.runtime.parts import Parts
from messaging.runtime.publisher import Publisher
from messaging.runtime.resources import listed, store_among
from messaging.runtime.router import Router
from messaging.runtime.seams import Seams
from messaging.runtime.sending import Sending
from messaging.runtime.tasks import Tasks
from messaging.runtime.trust_record import TrustRecord
from messaging.runtime.trust_watch import watch_trust
from messaging.settings import Settings
from messaging.stores.base import Store
from messaging.stores.memory import MemoryInbox, MemorySeenBundles
from messaging.transports.base import LinkState, TransportState
from messaging.transports.memory import MemoryBroker

__all__ = ["Lifespan", "Service"]

Lifespan = Callable[["Service"], AbstractAsyncContextManager[Any]]

_QUIET_ROUNDS: Final = 3
_LOOK_AGAIN_S: Final = 0.02
_NOT_RUNNING: Final = TransportState(link=LinkState.CLOSED)

log = structlog.get_logger()


class Service(Sending, Router):
    """A service that sends and handles messages.

    Args:
        name: Its name: the first part of the messages it owns, and of its queues.
        settings: What the installation decides; by default read from the environment when the service starts.
        store: Durable inbox and outbox; default: memory. A store that the lifespan yields counts as well.
        lifespan: Opens what handlers need and yields it, one object or a tuple; `context.resource(Type)` finds it.
        middleware: Wraps every handler, the first outermost.
        version: Shown in faults and logs.
        retry: Policy of handlers that have none of their own.
        redact: Returns what may be told of a fault, such as one without its fields; it decides nothing else.
        partitions: How many queues share the commands with a key, each handled in order by one replica at a time; a
            power of two. How it is changed later: docs/evolution.md.

    Raises:
        ConfigurationError: the name breaks the grammar, or there cannot be so many partitions.
    """

    def __init__(
        self,
        name: str,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
        version: str = "",
        retry: RetryPolicy | None = None,
        partitions: int | None = None,
        redact: Redact | None = None,
    ) -> None:
        super().__init__()
        self.name = check_service(name)
        self.version = version
        self._settings = settings
        self._store = store
        self._lifespan = lifespan
        self._middleware = tuple(middleware)
        self._retry = RetryPolicy() if retry is None else retry
        self._redact = redact
        self._partitions = None if partitions is None else check_partitions(partitions)
        self._running_with: Settings | None = None
        self._parts: Parts | None = None
        self._engine: Engine | None = None
        self._stack: AsyncExitStack | None = None
        self._is_stopping = False
        self._seen_bundles = MemorySeenBundles()

    # ---- lifecycle

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, *, wait_forever: bool = False, seams: Seams | None = None) -> None:
        """Connect and consume.

        Args:
            wait_forever: Wait for broker and store as long as it takes, with a warning every 5 s.
            seams: What a test harness replaces.

        Raises:
            ConfigurationError: settings, keys, trust or handlers do not fit together.
            ConnectionLostError: no broker within `connect_timeout_s`.
            StoreUnavailableError: no answer from the store, which remembers the newest trust bundle.
        """
        if self._parts is not None:
            raise ConfigurationError(f"service {self.name!r} runs already")
        settings = self.settings if seams is None else seams.settings
        self._running_with = settings
        quieten(settings)
        subscriptions = self.subscriptions
        self._check_owned()
        parts = build(
            settings,
            self.name,
            subscriptions,
            ambient=None if seams is None else seams.ambient,
            wait_forever=wait_forever,
            on_published=None if seams is None else seams.on_published,
        )
        self._check_subscribed(parts)
        async with AsyncExitStack() as stack:
            stack.callback(self._forget)
            stack.push_async_callback(parts.transport.aclose)
            await parts.transport.connect()
            await parts.transport.declare(parts.names.of_service(self.name, subscriptions))
            record = TrustRecord(parts.trust)
            watch = Tasks()
            stack.push_async_callback(watch.cancel)
            bundle = trust_file(settings)
            if bundle is not None:
                watching = watch_trust(
                    parts.trust, bundle, poll_s=settings.trust_poll_s, lagging=parts.lagging, record=record
                )
                watch.spawn(watching, name=f"{self.name} trust")
            self._parts = parts
            stack.push_async_callback(parts.replies.aclose)
            opened = None if self._lifespan is None else await stack.enter_async_context(self._lifespan(self))
            resources = listed(opened)
            store = store_among(self._store, resources)
            if bundle is not None:
                seen = self._seen_bundles if store is None else store.seen_bundles(self.name)
                await record.begin(seen, wait_forever=wait_forever)
            engine = self._engine_of(parts, settings, seams, store)
            stack.push_async_callback(self._drain, engine)
            await engine.start(resources)
            self._engine = engine
            self._stack = stack.pop_all()
        log.info("service.started", service=self.name, instance=parts.instance, version=self.version)

    async def stop(self) -> None:
        """Stop consuming, drain running handlers, close. Twice is once."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            await stack.aclose()
        finally:
            log.info("service.stopped", service=self.name)

    async def serve(self, *, on_started: Callable[[], None] | None = None) -> None:
        """Run until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

        Network trouble is waited out, with a warning every 5 s.

        Args:
            on_started: Called once the service consumes.
        """
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        wanted = asyncio.Event()

        def stop_once() -> None:
            # The second signal finds the default handlers: it ends the process, and the broker has what was unsettled.
            _ignore_stop_signals(loop)
            wanted.set()
            if self._stack is None and main is not None:
                main.cancel()

        for signum in _STOP_SIGNALS:
            loop.add_signal_handler(signum, stop_once)
        try:
            await self.start(wait_forever=True)
            if on_started is not None:
                on_started()
            await wanted.wait()
            log.info("service.draining", service=self.name, timeout_s=self.settings.drain_timeout_s)
        except asyncio.CancelledError:
            if main is None or not wanted.is_set():
                raise
            # The signal came while it was starting: what had been opened is closed, there is nothing to drain.
            main.uncancel()
        finally:
            await self.stop()
            _ignore_stop_signals(loop)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then drain; blocks. See `serve`."""
        asyncio.run(self.serve())

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until nothing is under way; for examples and tests.

        On the embedded broker that means everything; on RabbitMQ what this service handles, and what waits in its
        queues.

        Raises:
            TimeoutError: something still is after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            quiet = 0
            while quiet < _QUIET_ROUNDS:
                await asyncio.sleep(_LOOK_AGAIN_S)
                quiet = quiet + 1 if await self._is_idle() else 0

    @asynccontextmanager
    async def opened_store(self) -> AsyncIterator[Store | None]:
        """Open the store alone, for tools: neither keys nor broker are needed. None when the service has none."""
        async with AsyncExitStack() as stack:
            resources: Sequence[object] = ()
            if self._store is None and self._lifespan is not None:
                resources = listed(await stack.enter_async_context(self._lifespan(self)))
            yield store_among(self._store, resources)

    # ---- what it is

    @property
    def settings(self) -> Settings:
        """The settings; read from the environment on first use when none were given."""
        if self._settings is None:
            self._settings = Settings()
        return self._settings

    @property
    def subscriptions(self) -> Subscriptions:
        """What it handles, as topology and trust need to know it."""
        return replace(self.subscriptions_with(self._retry), partitions=self._partitions)

    @property
    def health(self) -> Health:
        """Whether it lives, may be given work, and what is wrong."""
        parts, engine = self._parts, self._engine
        return judge_health(
            is_started=self._stack is not None and not self._is_stopping,
            link=_NOT_RUNNING if parts is None else parts.transport.state,
            consumers={} if engine is None else engine.consumers,
            trouble=None if engine is None else engine.trouble,
            lag=None if engine is None else engine.lag,
            details={
                "service": self.name,
                "running": self.running,
                "counts": {} if engine is None else engine.counts,
                "inbox_rows": {} if engine is None else engine.inbox_rows,
            },
        )

    @property
    def publisher(self) -> Publisher:
        """The way out while it runs; `send`, `publish` and `request` stand on it.

        Raises:
            ConfigurationError: it does not run.
        """
        if self._parts is None:
            raise ConfigurationError(f"service {self.name!r} does not run: use `async with {self.name}:` or run()")
        return self._parts.publisher

    @property
    def running(self) -> int:
        """How many deliveries are being handled now."""
        return 0 if self._engine is None else self._engine.running

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being handled, and nothing that was committed waits to leave."""
        return self._engine is None or self._engine.is_idle

    @property
    def resting(self) -> Mapping[str, int]:
        """Partition → how many deliveries it holds that all wait for a next try."""
        return {} if self._engine is None else self._engine.resting

    # ---- inside

    def _engine_of(self, parts: Parts, settings: Settings, seams: Seams | None, store: Store | None) -> Engine:
        inbox = MemoryInbox(ambient=parts.ambient, max_ids=settings.inbox_ids, ttl_s=settings.inbox_ttl_s)
        return Engine(
            parts,
            self,
            identity=Identity(
                service=self.name,
                instance=parts.instance,
                host=socket.gethostname(),
                version=self.version,
                redact=self._redact,
            ),
            inbox=inbox if store is None else store.inbox,
            store=store,
            retry=self._retry,
            limits=EngineLimits.of(settings),
            middleware=self._middleware,
            seams=seams,
            failpoint=Failpoint.parse(settings.failpoint),
        )

    def _forget(self) -> None:
        """The last act of stopping, and of a start that failed: it may be started again."""
        self._parts = self._engine = None
        self._is_stopping = False

    async def _drain(self, engine: Engine) -> None:
        self._is_stopping = True
        await engine.drain()

    def _check_owned(self) -> None:
        for name, _ in sorted(self.subscriptions.commands | self.subscriptions.requests):
            if owner_of(name) != self.name:
                raise ConfigurationError(
                    f"service {self.name!r} handles {name}, which {owner_of(name)!r} owns: only the owner of a command "
                    "or request handles it; to hear what happened subscribe to an event"
                )
        if self._partitions is not None and not self.subscriptions.keyed:
            raise ConfigurationError(
                f"service {self.name!r} has partitions, but handles no command with a key: declare one, such as "
                'class PlaceOrder(Command, …, key="order_id")'
            )

    def _check_subscribed(self, parts: Parts) -> None:
        for name, _ in sorted(self.subscriptions.events):
            if self.name not in parts.trust.current.policy.audience_of_event(name):
                raise ConfigurationError(
                    f"service {self.name!r} handles the event {name}, but trust bundle version "
                    f"{parts.trust.current.version} does not list it: add {self.name!r} to policy.subscribe[{name!r}] "
                    "(development: run `messaging trust init --dev` again with --from this service)"
                )

    async def _is_idle(self) -> bool:
        if (engine := self._engine) is None or not self.is_idle or engine.resting:
            return engine is None
        settings = self._running_with or self.settings
        if settings.is_embedded:
            return settings.shared(MemoryBroker, MemoryBroker).is_idle(with_delays=True)
        return await engine.queues_are_empty()


_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _ignore_stop_signals(loop: asyncio.AbstractEventLoop) -> None:
    for signum in _STOP_SIGNALS:
        loop.remove_signal_handler(signum)
