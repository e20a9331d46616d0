import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import aiormq
import pytest

from messaging.core.topology import Binding, Declares, Exchange, Queue, Subscriptions, Topology
from messaging.errors import ConfigurationError, TopologyConflictError, UnroutableError
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.declare import declare, look, take_lock
from messaging.transports.amqp.errors import Node
from messaging.transports.base import QueueDepth
from tests.support.broker import Broker
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import Recorder, publish, to, work

pytestmark = pytest.mark.broker


async def test_conflict_names_the_thing_both_sides_and_the_remedy(rig: AmqpRig) -> None:
    transport = await rig.transport()
    await transport.declare(work(rig.names, {"x-message-ttl": 60_000}))

    with pytest.raises(TopologyConflictError) as caught:
        await transport.declare(work(rig.names, {"x-message-ttl": 5_000}))

    said = str(caught.value)
    for part in (rig.names.queue("orders", "commands"), "'x-message-ttl': 5000", "'60000'", "messaging topology plan"):
        assert part in said


async def test_conflict_is_not_remembered(rig: AmqpRig) -> None:
    transport = await rig.transport()
    good = work(rig.names, {"x-message-ttl": 60_000})
    await transport.declare(good)

    with pytest.raises(TopologyConflictError):
        await transport.declare(work(rig.names, {"x-message-ttl": 5_000}))

    assert transport.remembered == good


async def test_binding_to_a_missing_exchange_is_a_conflict(rig: AmqpRig) -> None:
    transport = await rig.transport()
    queue = rig.names.queue("orders", "commands")
    missing = f"{rig.names.namespace}.nowhere"

    with pytest.raises(TopologyConflictError, match="nowhere"):
        await transport.declare(Topology(bindings=(Binding(exchange=missing, queue=queue, routing_key="k"),)))


async def test_reserved_name_is_forbidden(rig: AmqpRig) -> None:
    transport = await rig.transport()

    with pytest.raises(ConfigurationError, match=r"amq\.ours"):
        await transport.declare(Topology(exchanges=(Exchange(name="amq.ours", type="topic"),)))


async def test_look_counts_messages_and_consumers(rig: AmqpRig) -> None:
    transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
    await transport.declare(work(rig.names, {}))
    await publish(transport, to(rig.names.commands), b"a", b"b", b"c")
    recorder = Recorder()
    await transport.consume(queue, recorder, prefetch=1)
    await recorder.reaches(1)

    assert await transport.depth(queue) == QueueDepth(messages=2, consumers=1)
    assert await transport.depth(f"{queue}.missing") is None


async def test_exclusive_queue_of_another_is_told(broker: Broker, rig: AmqpRig) -> None:
    one, two = [await _connection(broker) for _ in range(2)]
    name = rig.names.lock("q")

    async with take_lock(one, name):
        with pytest.raises(TopologyConflictError, match="belongs to another connection"):
            await look(two, name)
        with pytest.raises(TopologyConflictError, match="lock"):
            async with take_lock(two, name):
                pass
    assert await look(two, name) is None

    await one.aclose()
    await two.aclose()


async def test_lock_is_released_when_the_block_fails(broker: Broker, rig: AmqpRig) -> None:
    connection = await _connection(broker)
    name = rig.names.lock("q")

    with pytest.raises(ZeroDivisionError):
        async with take_lock(connection, name):
            raise ZeroDivisionError

    assert await look(connection, name) is None
    await connection.aclose()


async def test_declares_on_a_channel_of_its_own(broker: Broker, rig: AmqpRig) -> None:
    connection = await _connection(broker)
    queue = Queue(name=rig.names.queue("orders", "commands"))

    await declare(connection, Topology(queues=(queue,)))
    with pytest.raises(TopologyConflictError):
        await declare(connection, Topology(queues=(Queue(name=queue.name, arguments={"x-max-length": 1}),)))

    assert connection.is_open
    async with connection.throwaway() as channel:
        await channel.queue_delete(queue.name)
    await connection.aclose()


class OneNodeDown:
    """A connection to a cluster in which the node of one classic queue is down: what such a broker answers (3.10)."""

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue

    @contextlib.asynccontextmanager
    async def throwaway(self) -> AsyncIterator[Any]:
        async with self._connection.throwaway() as channel:
            yield ChannelOfOneNodeDown(channel, self._queue)


class ChannelOfOneNodeDown:
    def __init__(self, channel: aiormq.Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def queue_declare(self, queue: str, **options: Any) -> Any:
        self._refuse(queue)
        return await self._channel.queue_declare(queue, **options)

    async def queue_bind(self, queue: str, exchange: str, routing_key: str, **options: Any) -> Any:
        self._refuse(queue)
        return await self._channel.queue_bind(queue, exchange, routing_key, **options)

    def _refuse(self, queue: str) -> None:
        if queue == self._queue:
            raise aiormq.ChannelNotFoundEntity(
                f"NOT_FOUND - home node 'a@localhost' of durable queue '{queue}' in vhost '/' is down or inaccessible"
            )


@pytest.mark.parametrize("declares", list(Declares))
async def test_a_queue_whose_node_is_down_does_not_keep_the_others_from_being_made(
    rig: AmqpRig, broker: Broker, declares: Declares
) -> None:
    maker, names, connection = await rig.transport(), rig.names, await _connection(broker)
    orders = frozenset({("orders.place", 1)})
    everything = names.of_service("orders", Subscriptions(commands=orders, requests=orders))
    await maker.declare(everything)

    down = cast("Connection", OneNodeDown(connection, names.queue("orders", "requests")))
    await declare(down, everything, declares)

    await connection.aclose()


async def _connection(broker: Broker) -> Connection:
    return await Connection.open(Node.parse(broker.url), name="test", heartbeat_s=10, timeout_s=30.0)


class TestWhatIsNotOursToMake:
    async def test_is_looked_for_and_the_rest_is_made(self, rig: AmqpRig, broker: Broker) -> None:
        maker, names = await rig.transport(), rig.names
        connection = await _connection(broker)
        everything = names.of_service("orders", Subscriptions(commands=frozenset({("orders.place", 1)})))
        replies = names.of_replies("orders", "0" * 16)
        await maker.declare(everything)

        await declare(connection, everything + replies, Declares.REPLIES)

        found = await look(connection, replies.queues[0].name)
        assert found == QueueDepth(messages=0, consumers=0)
        await connection.aclose()

    @pytest.mark.parametrize(
        ("declares", "there", "missing"),
        [
            (Declares.OWN, Topology(), "exchange"),
            (Declares.REPLIES, Topology(), "exchange"),
            (Declares.REPLIES, Topology(exchanges=(Exchange(name="x", type="topic"),)), "queue"),
        ],
    )
    async def test_is_missed_by_name_with_the_remedy(
        self, declares: Declares, there: Topology, missing: str, rig: AmqpRig, broker: Broker
    ) -> None:
        connection, name = await _connection(broker), f"{rig.names.namespace}.x"
        wanted = Topology(
            exchanges=(Exchange(name=name, type="topic", is_shared=True),), queues=(Queue(name=f"{name}.q"),)
        )
        if there.exchanges:
            await declare(connection, Topology(exchanges=wanted.exchanges))

        with pytest.raises(TopologyConflictError, match=f"{missing} '{name}.*run `messaging topology apply`"):
            await declare(connection, wanted, declares)

        assert connection.is_open
        await connection.aclose()

    async def test_own_things_are_made_where_the_shared_ones_exist(self, rig: AmqpRig, broker: Broker) -> None:
        maker, names, connection = await rig.transport(), rig.names, await _connection(broker)
        await maker.declare(names.shared())
        own = names.of_service("orders", Subscriptions(commands=frozenset({("orders.place", 1)})))

        await declare(connection, own, Declares.OWN)

        assert all([await look(connection, queue.name) is not None for queue in own.queues])
        await connection.aclose()

    async def test_bindings_to_queues_that_others_made_are_theirs(self, rig: AmqpRig) -> None:
        maker, names = await rig.transport(), rig.names
        queue = names.queue("orders", "commands")
        await maker.declare(Topology(exchanges=names.shared().exchanges, queues=(Queue(name=queue),)))
        careful = await rig.transport(declares=Declares.REPLIES)

        await careful.declare(
            Topology(
                queues=(Queue(name=queue),),
                bindings=(Binding(exchange=names.commands, queue=queue, routing_key="orders.place.v1"),),
            )
        )

        with pytest.raises(UnroutableError):
            await publish(maker, to(names.commands, "orders.place.v1"), b"a")
