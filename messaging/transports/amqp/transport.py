"""`AmqpTransport`: two links, a publisher, subscriptions and the remembered topology, behind the port of `base`.

Example:
    transport = AmqpTransport(["amqp://orders:secret@broker/"], ambient=ambient)
    await transport.connect()
    await transport.declare(names.of_service("orders", subscriptions))
    subscription = await transport.consume("messaging.orders.commands", inbox.put_nowait, prefetch=64)
    await transport.aclose()
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.core.sealed import Label, Route, Sealed
from messaging.core.topology import Binding, Declares, Topology
from messaging.errors import ConfigurationError, ConnectionLostError, TopologyConflictError
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.connection import RPC_TIMEOUT_S, Connection
from messaging.transports.amqp.consumer import AmqpSubscription
from messaging.transports.amqp.declare import declare, look, take_lock, unbind
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.feed import Surroundings
from messaging.transports.amqp.link import Link
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.publisher import Publisher
from messaging.transports.amqp.stream import read_stream
from messaging.transports.amqp.survey import Survey, survey
from messaging.transports.amqp.tasks import end
from messaging.transports.amqp.tls import Tls
from messaging.transports.base import Confirm, Delivery, LinkState, QueueDepth, Subscription, TransportState

__all__ = ["AmqpTransport"]

_WARN_EVERY_S: Final = 5.0
_FLUSH_S: Final = 3.0
# Each step of an orderly end has a bound of its own; together they must fit into what supervisors grant, 30 s.
_CLOSE_S: Final = 4.0
# From worst to best: what health checks show is the worst.
_BY_SEVERITY: Final = (LinkState.CLOSED, LinkState.CONNECTING, LinkState.BLOCKED, LinkState.CONNECTED)

_log = structlog.get_logger()


class AmqpTransport:
    """The way to RabbitMQ for one process.

    Args:
        urls: Addresses of the nodes, tried in turn.
        ambient: Clock, ids and jitter.
        connect_timeout_s: How long `connect` tries, and the bound of each attempt, seconds.
        heartbeat_s: Seconds between signs of life.
        wait_forever: Whether `connect` waits for a broker as long as it takes, with a warning every 5 s.
        name: Shown in the broker's list of connections.
        tls: Certificates, for addresses that begin with amqps.
        declares: What `declare` makes; the rest must be there.
        fast: Whether channels handle the frames of messages themselves, where the client library allows it.

    Raises:
        ConfigurationError: A URL is no AMQP address, or there is none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        ambient: Ambient,
        connect_timeout_s: float = 10.0,
        heartbeat_s: int = 10,
        wait_forever: bool = False,
        name: str = "messaging",
        tls: Tls | None = None,
        declares: Declares = Declares.ALL,
        fast: bool = True,
    ) -> None:
        if not urls:
            raise ConfigurationError("no broker address: set MESSAGING_BROKER_URL")
        self._ambient = ambient
        self._connect_timeout_s = connect_timeout_s
        self._wait_forever = wait_forever
        self._nodes = tuple(Node.parse(url, tls) for url in urls)
        self._declares = declares
        self._topology = Topology()
        self._subscriptions: list[AmqpSubscription] = []
        self._locks: set[str] = set()
        self._dropped = 0
        self._shown = LinkState.CLOSED
        self._was_connected = False
        self._down_since_s = 0.0
        self._warner: asyncio.Task[None] | None = None

        fast_path = FastPath(is_on=fast)

        def link(purpose: str) -> Link:
            return Link(
                f"{name} {purpose}",
                self._nodes,
                ambient=ambient,
                connect_timeout_s=connect_timeout_s,
                heartbeat_s=heartbeat_s,
                prepare=self._declare_remembered,
                on_change=self._on_change,
                fast_path=fast_path,
            )

        # The broker stops reading from connections that publish while an alarm is on; acks must still arrive.
        self._publishing = link("publish")
        self._consuming = link("consume")
        self._publisher = Publisher(self._publishing, ambient=ambient)
        self._around = Surroundings(
            link=self._consuming,
            ambient=ambient,
            outlet=self,
            declare=self._declare_remembered,
            consumers_of=self._consumers_of,
            note_dropped=self._note_dropped,
            start_timeout_s=None if wait_forever else connect_timeout_s,
        )

    @property
    def state(self) -> TransportState:
        """What health checks show."""
        links = (self._publishing, self._consuming)
        worst = min(links, key=lambda link: _BY_SEVERITY.index(link.state))
        problem = next((link.problem for link in links if link.problem), None)
        wanted = [subscription for subscription in self._subscriptions if subscription.is_wanted]
        starving = [subscription.queue for subscription in wanted if not subscription.is_live]
        if problem is None and starving and worst.state is LinkState.CONNECTED:
            problem = f"not consuming from {', '.join(sorted(starving))}; see the log"
        return TransportState(link=worst.state, problem=problem, dropped_acks=self._dropped)

    @property
    def remembered(self) -> Topology:
        """Everything that was declared, and is made again after each reconnect."""
        return self._topology

    async def connect(self) -> None:
        """Connect. Connected already is fine.

        Raises:
            ConnectionLostError: No broker within the connect timeout.
            ConfigurationError: The broker refuses the credentials or the virtual host.
        """
        if self._warner is not None:
            return
        self._down_since_s = self._ambient.monotonic_s()
        links = (self._publishing, self._consuming)
        for link in links:
            link.start()
        self._warner = asyncio.create_task(self._warn(), name="transport warnings")
        self._on_change()
        try:
            async with asyncio.timeout(None if self._wait_forever else self._connect_timeout_s):
                for link in links:
                    await link.first()
        except TimeoutError as error:
            problem = self.state.problem or f"no answer from {self._nodes[0].address}"
            await self._close_links()
            raise ConnectionLostError(f"{problem} (tried for {self._connect_timeout_s:g} s)") from error
        except BaseException:
            await self._close_links()
            raise
        self._publisher.start()

    async def declare(self, topology: Topology) -> None:
        """Make exchanges, queues and bindings exist; remembered, and made again after each reconnect.

        Raises:
            TopologyConflictError: Something exists with other arguments, or is not ours to make and does not exist.
            ConfigurationError: The broker forbids it to this user.
            ConnectionLostError: There is no connection.
        """
        await declare(await self._consuming_connection(), topology, self._declares)
        self._topology += topology

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Take bindings away for good; those that are not there are fine.

        Raises:
            ConfigurationError: The broker forbids it to this user.
            ConnectionLostError: There is no connection.
        """
        gone = set(bindings)
        await unbind(await self._consuming_connection(), gone)
        self._topology = self._topology.without(gone)

    def submit(self, sealed: Sealed, route: Route, label: Label, timeout_s: float, outcome: Confirm) -> None:
        """Publish, and tell `outcome` once the broker has confirmed, or what `publish` raises."""
        parcel = Parcel(sealed, route, label, label.message_id or self._ambient.new_id().hex)
        self._publisher.submit(parcel, timeout_s, outcome)

    def flush(self) -> None:
        """Write now what was submitted, instead of at the end of this turn."""
        self._publisher.flush()

    async def publish(self, sealed: Sealed, route: Route, label: Label, *, timeout_s: float) -> None:
        """Publish and return once the broker has confirmed.

        Raises:
            UnroutableError: The route is mandatory and reaches no queue.
            PublishNotConfirmedError: Refused by the broker, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: The transport is closed.
            MessageTooLargeError: The broker refuses messages of this size.
        """
        await self._publisher.publish(self._parcel(sealed, route, label), timeout_s=timeout_s)

    async def forward(self, body: bytes, route: Route, label: Label, *, timeout_s: float) -> None:
        """Publish bytes that arrived elsewhere, confirmed; for deliveries."""
        await self._publisher.publish(self._parcel(body, route, label), timeout_s=timeout_s)

    def sample(self, body: bytes, route: Route, label: Label) -> None:
        """Publish bytes that arrived, without waiting; for deliveries."""
        self._publisher.post(self._parcel(body, route, label))

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[], None] | None = None,
    ) -> Subscription:
        """Start a consumer. `on_delivery` only hands over: it must not block or raise. prefetch 0 means unbounded.

        Raises:
            TopologyConflictError: The queue does not exist.
            ConfigurationError: The broker forbids it to this user.
            ConnectionLostError: There is no connection.
        """
        await self._consuming_connection()
        await self._end_spent()
        subscription = AmqpSubscription(
            queue,
            on_delivery,
            prefetch=prefetch,
            around=self._around,
            on_lost=on_lost,
            may_stand_by=any(known.name == queue and known.is_single_active for known in self._topology.queues),
        )
        await subscription.start()
        self._subscriptions.append(subscription)
        return subscription

    async def depth(self, queue: str) -> QueueDepth | None:
        """Return what waits in a queue, or None when there is no such queue.

        Raises:
            ConnectionLostError: There is no connection.
        """
        return await look(await self._consuming_connection(), queue)

    async def survey(self, wanted: Topology, *, also: tuple[str, ...] = ()) -> Survey:
        """Look which of the wanted things exist, and as what; changes nothing. `also`: further queues to look for.

        Raises:
            ConnectionLostError: There is no connection.
        """
        return await survey(await self._consuming_connection(), wanted, also=also)

    async def history(self, queue: str) -> AsyncGenerator[bytes, None]:
        """Yield what a stream queue holds, oldest first; nothing of it is taken away.

        Raises:
            ConfigurationError: The broker forbids it to this user.
            ConnectionLostError: There is no connection, or it broke on the way.
        """
        async with contextlib.aclosing(read_stream(await self._consuming_connection(), queue)) as bodies:
            async for body in bodies:
                yield body

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Hold an exclusive name at the broker, as long as the connection lives.

        Raises:
            TopologyConflictError: Somebody else holds it.
            ConnectionLostError: There is no connection.
        """
        # The broker grants it to a connection: within ours it would grant it twice.
        if name in self._locks:
            raise TopologyConflictError(f"lock {name!r} is held by this process already")
        self._locks.add(name)
        try:
            async with take_lock(await self._consuming_connection(), name):
                yield
        finally:
            self._locks.discard(name)

    async def aclose(self) -> None:
        """Stop deliveries, wait for confirms within bounds, close. Twice is once.

        A broker that does not answer has four seconds in all, then the sockets are dropped.
        """
        subscriptions, self._subscriptions = self._subscriptions, []
        patience = asyncio.get_running_loop().call_later(_CLOSE_S, self._hang_up)
        try:
            await asyncio.gather(*(subscription.cancel() for subscription in subscriptions))
            await self._publisher.aclose(_FLUSH_S)
            await asyncio.gather(*(subscription.aclose() for subscription in subscriptions))
            await self._close_links()
        finally:
            patience.cancel()

    def _hang_up(self) -> None:
        for link in (self._publishing, self._consuming):
            if link.current is not None:
                link.current.abort()

    async def _close_links(self) -> None:
        warner, self._warner = self._warner, None
        if warner is not None:
            await end([warner])
        await asyncio.gather(self._publishing.aclose(), self._consuming.aclose())
        self._shown = LinkState.CLOSED
        self._was_connected = False

    async def _consuming_connection(self) -> Connection:
        if self._warner is None:
            raise ConnectionLostError("the transport is closed; connect first")
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                return await self._consuming.connected()
        except TimeoutError as error:
            raise ConnectionLostError(self.state.problem or "no connection to the broker") from error

    async def _declare_remembered(self, connection: Connection) -> None:
        if self._topology != Topology():
            await declare(connection, self._topology, self._declares)

    async def _end_spent(self) -> None:
        """Close the channels of consumers that were cancelled: a connection has some two thousand of them."""
        spent = [subscription for subscription in self._subscriptions if subscription.is_spent]
        self._subscriptions = [subscription for subscription in self._subscriptions if subscription not in spent]
        await asyncio.gather(*(subscription.aclose() for subscription in spent))

    def _consumers_of(self, queue: str) -> int:
        return sum(1 for subscription in self._subscriptions if subscription.queue == queue and subscription.is_live)

    def _note_dropped(self, count: int) -> None:
        self._dropped += count

    def _parcel(self, body: bytes, route: Route, label: Label) -> Parcel:
        return Parcel.of(body, route, label, new_id=self._ambient.new_id)

    def _on_change(self) -> None:
        state = self.state
        before, self._shown = self._shown, state.link
        self._publisher.pump()
        if before is state.link:
            return
        match state.link:
            case LinkState.CONNECTED if before is LinkState.BLOCKED:
                _log.info("transport.unblocked")
            case LinkState.CONNECTED:
                self._log_connected()
            case LinkState.BLOCKED:
                _log.warning("transport.blocked", problem=state.problem)
            case LinkState.CONNECTING if self._was_connected:
                self._down_since_s = self._ambient.monotonic_s()
                _log.warning("transport.lost", problem=state.problem)

    def _log_connected(self) -> None:
        addresses = sorted({link.current.node.address for link in (self._publishing, self._consuming) if link.current})
        if self._was_connected:
            down_s = round(self._ambient.monotonic_s() - self._down_since_s, 3)
            _log.info("transport.restored", nodes=addresses, down_s=down_s)
        else:
            self._was_connected = True
            _log.info("transport.connected", nodes=addresses)

    async def _warn(self) -> None:
        while True:
            await asyncio.sleep(_WARN_EVERY_S)
            state = self.state
            if state.problem is not None:
                _log.warning("transport.waiting", link=state.link.value, problem=state.problem)
