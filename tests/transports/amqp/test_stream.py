"""Reading a stream from its beginning, over a real broker."""

import pytest

from messaging.core.topology import Queue, Topology
from messaging.errors import TopologyConflictError
from messaging.transports.amqp import stream
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import fanout, publish, to

pytestmark = pytest.mark.broker


async def read(rig: AmqpRig) -> list[bytes]:
    transport = await rig.transport()
    return [body async for body in transport.history(rig.names.audit)]


async def test_it_yields_everything_oldest_first_and_takes_nothing_away(
    rig: AmqpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PREFETCH", 7)
    transport = await rig.transport()
    await transport.declare(rig.names.audit_trail())
    bodies = [b"%d" % number for number in range(50)]
    await publish(transport, to(rig.names.audit, ""), *bodies)

    assert await read(rig) == bodies
    assert await read(rig) == bodies


async def test_an_empty_one_and_a_missing_one_yield_nothing(rig: AmqpRig) -> None:
    assert await read(rig) == []
    await (await rig.transport()).declare(rig.names.audit_trail())
    assert await read(rig) == []


async def test_a_queue_that_is_no_stream_is_not_read(rig: AmqpRig) -> None:
    transport = await rig.transport()
    topology: Topology = fanout(rig.names.audit, rig.names.audit, Queue(name="x").arguments)
    await transport.declare(topology)

    with pytest.raises(TopologyConflictError, match="x-stream-offset"):
        await read(rig)
