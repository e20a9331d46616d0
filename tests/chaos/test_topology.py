"""Somebody harms what services declared, or their rights: isolated, repaired or a clear error, and nothing lost."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import routing_key
from tests.chaos.findings import Finding
from tests.chaos.history import What, read_history
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

HARM_S = 8.0
Act = Callable[[Rig], Awaitable[object]]


async def ctl(rig: Rig, *arguments: str) -> str:
    return await asyncio.to_thread(rig.node.ctl, *arguments, timeout_s=90)


def resource(kind: str, name: str) -> str:
    return f'{{resource, <<"/">>, {kind}, <<"{name}">>}}'


async def delete_exchange(rig: Rig) -> None:
    exchange = rig.operator.names.exchange_of(Kind.COMMAND, "chaos")
    await ctl(rig, "eval", f'rabbit_exchange:delete({resource("exchange", exchange)}, false, <<"chaos">>).')


async def remove_binding(rig: Rig) -> None:
    source = resource("exchange", rig.operator.names.exchange_of(Kind.COMMAND, "chaos"))
    target = resource("queue", rig.operator.names.queue("chaos", "commands"))
    binding = f'{{binding, {source}, <<"{routing_key("chaos.apply", 1)}">>, {target}, []}}'
    await ctl(rig, "eval", f'rabbit_binding:remove({binding}, <<"chaos">>).')


async def close_connections(rig: Rig) -> None:
    await ctl(rig, "close_all_connections", "chaos")


async def revoke_rights(rig: Rig) -> None:
    await ctl(rig, "clear_permissions", "guest")
    await close_connections(rig)


async def grant_rights(rig: Rig) -> None:
    await ctl(rig, "set_permissions", "guest", ".*", ".*", ".*")


async def change_password(rig: Rig) -> None:
    await ctl(rig, "change_password", "guest", "another")
    await close_connections(rig)


async def restore_password(rig: Rig) -> None:
    await ctl(rig, "change_password", "guest", "guest")


async def bound_commands(rig: Rig) -> None:
    queue = rig.operator.names.queue("chaos", "commands")
    policy = json.dumps({"max-length": 5, "overflow": "reject-publish"})
    await ctl(rig, "set_policy", "--apply-to", "queues", "bounded", f"^{queue}$", policy)


async def free_commands(rig: Rig) -> None:
    await ctl(rig, "clear_policy", "bounded")
    # 3.10 lifts the refusal from new channels only.
    await close_connections(rig)


@pytest.mark.parametrize(
    ("fault", "harm", "heal"),
    [
        pytest.param("exchange of commands deleted", delete_exchange, close_connections, id="exchange"),
        pytest.param("binding of a command removed", remove_binding, close_connections, id="binding"),
        pytest.param("permissions revoked", revoke_rights, grant_rights, id="permissions"),
        pytest.param("password changed", change_password, restore_password, id="password"),
        pytest.param("policy: at most 5 commands, reject-publish", bound_commands, free_commands, id="policy"),
    ],
)
async def test_what_was_declared_is_harmed(rig: Rig, fault: str, harm: Act, heal: Act, findings: list[Finding]) -> None:
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(rig.chance.uniform(1, 3))

    try:
        await harm(rig)
        await asyncio.sleep(HARM_S)
    finally:
        await heal(rig)
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)

    alive = [worker.is_running for worker in rig.workers]
    # 404 for the exchange that is gone is a conflict with what was declared.
    clear = {"UnroutableError", "PublishNotConfirmedError", "ConnectionLostError", "TopologyConflictError"}
    errors = {call.error for call in read_history(rig.history_file).values() if call.what is What.APPLY and call.error}
    assert all(alive), "whoever meets a broken topology waits for its repair"
    assert errors <= clear, "callers got a clear error"
    assert judgement.problems == {}
    assert finding.held
    assert events_per_s(rig) < LOUD_PER_S, "no hot loop"


# A worker that works writes a few lines for each message that fails; one that loops writes thousands.
LOUD_PER_S = 100.0


def events_per_s(rig: Rig) -> float:
    lines = sum(
        str(event["event"]).startswith(("transport.", "consumer."))
        for worker in rig.workers
        for event in worker.events()
    )
    return lines / HARM_S
