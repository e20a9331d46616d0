"""What is none of ours arrives between commands: no envelope at all, keys that nobody knows, bodies too large."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import aiormq
import pytest

from messaging import Service, Settings
from messaging.ambient import real_ambient
from messaging.core.envelope import Kind
from messaging.core.topology import Subscriptions, routing_key
from messaging.errors import MessageTooLargeError
from messaging.security.development_files import Contract, init_development
from tests.chaos.contract import Apply, NewerApply
from tests.chaos.findings import Finding
from tests.chaos.ledger import Did
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

OURS: Final = Subscriptions(commands=frozenset({("chaos.apply", 1)}))
TOO_LARGE: Final = "x" * (5 * 1024 * 1024)
BODY_BYTES: Final = 1_024
PAUSE_S: Final = 0.02


async def test_what_is_none_of_ours_stops_nothing(rig: Rig, fire_s: float, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()

    forged: set[UUID] = set()
    async with stranger(rig) as foreign, caller(rig) as own, asyncio.timeout(10 * fire_s):
        connection = await aiormq.connect(rig.node.url)
        channel = await connection.channel()
        exchange = rig.operator.names.exchange_of(Kind.COMMAND, "chaos")
        until_s = asyncio.get_running_loop().time() + fire_s
        while asyncio.get_running_loop().time() < until_s:
            body = rig.chance.randbytes(rig.chance.choice((0, 1, BODY_BYTES)))
            await channel.basic_publish(body, exchange=exchange, routing_key=routing_key("chaos.apply", 1))
            op_id = real_ambient().new_id()
            forged.add(op_id)
            await foreign.send(Apply(op_id=op_id), message_id=op_id)
            with pytest.raises(MessageTooLargeError):
                await own.send(NewerApply(op_id=op_id, remark=TOO_LARGE))
            await asyncio.sleep(PAUSE_S)
        await connection.close()
    await rig.recovered()
    finding, judgement = await rig.judged("garbage, forgeries and bodies too large between commands")
    findings.append(finding)

    done = (await rig.ledger.counts())[Did.APPLIED]
    samples = await rig.operator.transport.depth(rig.operator.names.queue("chaos", "quarantine"))
    assert forged
    assert forged.isdisjoint(done), "nothing that nobody known has signed is done"
    assert samples is not None
    assert samples.messages > 0
    assert rig.told("chaos", "consumer.lost") == 0, "the channels stayed"
    assert judgement.problems == {}
    assert finding.held


@asynccontextmanager
async def caller(rig: Rig) -> AsyncIterator[Service]:
    """Lend a service that may send."""
    settings = Settings(
        broker_url=rig.node.url,
        keys=rig.folder / "keys",
        namespace=rig.operator.names.namespace,
        connect_timeout_s=60.0,
    )
    async with Service("load", settings) as service:
        yield service


@asynccontextmanager
async def stranger(rig: Rig) -> AsyncIterator[Service]:
    """Lend a service of the same name whose keys are of another realm."""
    keys = rig.folder / "keys-foreign"
    contracts = {"load": Contract(handles=Subscriptions()), "chaos": Contract(handles=OURS)}
    init_development(keys, contracts, ambient=real_ambient())
    settings = Settings(
        broker_url=rig.node.url, keys=keys, namespace=rig.operator.names.namespace, connect_timeout_s=60.0
    )
    async with Service("load", settings) as service:
        yield service
