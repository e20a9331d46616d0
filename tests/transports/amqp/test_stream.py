"""Reading a stream from its beginning, over a real broker."""

import asyncio

import pytest

from messaging.core.topology import Queue, Topology
from messaging.errors import ConnectionLostError, TopologyConflictError
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


async def test_a_broker_that_stands_still_does_not_end_it(rig: AmqpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PREFETCH", 7)
    transport = await rig.transport()
    await transport.declare(rig.names.audit_trail())
    bodies = [b"%d" % number for number in range(20)]
    await publish(transport, to(rig.names.audit, ""), *bodies)
    found: list[bytes] = []

    async for body in transport.history(rig.names.audit):
        found.append(body)
        if len(found) == 1:
            rig.proxy_of(transport).hold()
            asyncio.get_running_loop().call_later(3 * stream._QUIET_S, rig.proxy_of(transport).release)

    assert found == bodies


async def test_a_connection_that_breaks_is_no_end_of_it(rig: AmqpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PREFETCH", 7)
    transport = await rig.transport()
    await transport.declare(rig.names.audit_trail())
    await publish(transport, to(rig.names.audit, ""), *(b"%d" % number for number in range(20)))

    async def read_and_cut() -> None:
        async for _ in transport.history(rig.names.audit):
            await rig.cut(transport)

    with pytest.raises(ConnectionLostError, match="in the middle of stream"):
        await read_and_cut()


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
