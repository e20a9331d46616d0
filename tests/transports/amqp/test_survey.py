"""What AMQP alone can tell about what exists."""

import pytest

from messaging.core.topology import Exchange, Names, Queue, Subscriptions, Topology
from messaging.core.topology_plan import TYPE
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import depth_of

pytestmark = pytest.mark.broker


def real(names: Names) -> Topology:
    return names.of_service("orders", Subscriptions(commands=frozenset({("orders.place", 1)}), rungs_ms=(1000,)))


async def test_on_an_empty_broker_nothing_exists_and_nothing_is_made(rig: AmqpRig) -> None:
    transport, wanted = await rig.transport(), real(rig.names)

    found = await transport.survey(wanted)

    assert not found.existing.queues
    assert not found.existing.exchanges
    assert await depth_of(transport, rig.names.queue("orders", "commands")) is None


async def test_what_is_as_wanted_is_found_so(rig: AmqpRig) -> None:
    transport, wanted = await rig.transport(), real(rig.names)
    await transport.declare(wanted)

    found = await transport.survey(wanted, also=(rig.names.queue("orders", "events"),))

    assert found.existing.queues == {queue.name: dict(queue.arguments) for queue in wanted.queues}
    assert found.existing.exchanges[rig.names.commands] == {TYPE: "topic"}
    assert found.unknown == {}


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({"x-queue-type": "classic", "x-message-ttl": 7}, {"x-queue-type": "classic", "x-message-ttl": 7}),
        ({"x-queue-type": "classic"}, {"x-queue-type": "classic"}),
    ],
)
async def test_the_first_argument_that_differs_is_told(
    rig: AmqpRig, arguments: dict[str, str | int], seen: dict[str, str | int]
) -> None:
    transport, name = await rig.transport(), rig.names.queue("orders", "commands")
    await transport.declare(Topology(queues=(Queue(name=name, arguments=arguments),)))
    wanted = Queue(name=name, arguments={"x-queue-type": "classic", "x-message-ttl": 60_000})

    found = await transport.survey(Topology(queues=(wanted,)))

    assert found.existing.queues[name] == seen


async def test_an_exchange_of_another_type_is_told(rig: AmqpRig) -> None:
    transport = await rig.transport()
    await transport.declare(Topology(exchanges=(Exchange(name=rig.names.commands, type="fanout"),)))

    found = await transport.survey(Topology(exchanges=(Exchange(name=rig.names.commands, type="topic"),)))

    assert found.existing.exchanges[rig.names.commands] == {TYPE: "fanout"}


async def test_a_queue_that_nobody_wants_is_looked_for_by_name(rig: AmqpRig) -> None:
    transport, name = await rig.transport(), rig.names.queue("orders", "events")
    await transport.declare(Topology(queues=(Queue(name=name),)))

    found = await transport.survey(Topology(), also=(name, rig.names.queue("orders", "faults")))

    assert set(found.existing.queues) == {name}
