import pytest

from messaging.core.topology import Binding, Exchange, Queue, Topology
from messaging.errors import ConfigurationError, TopologyConflictError
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.declare import declare, look, take_lock
from messaging.transports.amqp.errors import Node
from messaging.transports.base import QueueDepth
from tests.support.broker import Broker
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import publish, to, work

pytestmark = pytest.mark.broker


async def test_conflict_names_the_thing_both_sides_and_the_remedy(rig: AmqpRig) -> None:
    transport = await rig.transport()
    await transport.declare(work(rig.names, {"x-message-ttl": 60_000}))

    with pytest.raises(TopologyConflictError) as caught:
        await transport.declare(work(rig.names, {"x-message-ttl": 5_000}))

    said = str(caught.value)
    for part in (rig.names.queue("orders", "commands"), "'x-message-ttl': 5000", "'60000'", "messaging topology show"):
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
    await transport.consume(queue, lambda _: None, prefetch=1)

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


async def _connection(broker: Broker) -> Connection:
    return await Connection.open(Node.parse(broker.url), name="test", heartbeat_s=10, timeout_s=10.0)
