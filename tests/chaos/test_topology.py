"""Somebody harms what services declared, or their rights: isolated, repaired or a clear error, and nothing lost."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiormq
import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import routing_key
from tests.chaos.findings import Finding
from tests.chaos.history import What, read_history
from tests.chaos.opening import open_rig
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.guarded import guarded
from tests.support.installation import ROOT
from tests.support.managed import ManagedNode, a_managed_node

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

HARM_S = 8.0
TRIES = 20
DOCTOR_S = 60.0
# The broker tells of a policy, or of its end, once its figures are anew: each second here, later on a busy machine.
STATISTICS_S = 60.0
Act = Callable[[Rig], Awaitable[object]]


async def ctl(rig: Rig, *arguments: str) -> str:
    return await asyncio.to_thread(rig.node.ctl, *arguments, timeout_s=CTL_TIMEOUT_S)


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


async def test_a_queue_exists_with_other_arguments(rig: Rig, findings: list[Finding]) -> None:
    queue = rig.operator.names.queue("chaos", "commands")
    await rig.start("witness")
    await declare_otherwise(rig, queue)
    (unlucky,) = await rig.start()
    code, words = await rig.died(unlucky), unlucky.last_words()
    await ctl(rig, "delete_queue", queue)
    workers = await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(rig.chance.uniform(1, 3))
    # It is empty when it goes: what is in a queue that somebody deletes is lost.
    await rig.drained()

    await declare_otherwise(rig, queue)
    await close_connections(rig)
    try:
        await asyncio.sleep(HARM_S + rig.chance.uniform(0, 4))
        ready = [await worker.is_ready() for worker in workers]
        loud = events_per_s(rig)
    finally:
        await ctl(rig, "delete_queue", queue)
    await rig.recovered()
    await rig.load()
    await asyncio.sleep(HARM_S)
    finding, judgement = await rig.judged("queue of commands exists with other arguments")
    findings.append(finding)

    said = {json.dumps(event) for worker in workers for event in worker.events()}
    assert code != 0, "who cannot begin says so and ends"
    assert f"{queue}' exists with other arguments" in words, words
    assert all(worker.is_running for worker in workers), "who has begun waits until somebody decides"
    assert not any(ready)
    assert any(f"{queue}' exists with other arguments" in words for words in said), "a clear error"
    assert loud < LOUD_PER_S, "no hot loop"
    assert judgement.problems == {}
    assert finding.held


async def declare_otherwise(rig: Rig, queue: str) -> None:
    """Put another queue into the place of one, before those who consume from it declare it anew."""
    connection = await aiormq.connect(rig.node.url)
    try:
        for _ in range(TRIES):
            channel = await connection.channel()
            await channel.queue_delete(queue)
            with suppress(aiormq.ChannelPreconditionFailed):
                await channel.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
                return
    finally:
        await connection.close()
    raise AssertionError(f"{queue} was declared anew {TRIES} times")


@pytest.fixture
async def managed_rig(run_folder: Path, seed: int) -> AsyncIterator[tuple[Rig, ManagedNode]]:
    """A rig on a broker whose policies can be read, and that broker."""
    with a_managed_node() as node:
        async with open_rig(node, run_folder, seed=seed) as opened:
            yield opened, node


async def test_a_policy_would_drop_messages(managed_rig: tuple[Rig, ManagedNode], findings: list[Finding]) -> None:
    rig, node = managed_rig
    queue = rig.operator.names.queue("chaos", "commands")
    policy = json.dumps({"max-length": 100_000, "overflow": "drop-head"})
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    before = await doctor(rig, node)

    await ctl(rig, "set_policy", "--apply-to", "queues", "lossy", f"^{queue}$", policy)
    await asyncio.sleep(HARM_S + rig.chance.uniform(0, 4))
    harmed = await doctor(rig, node)
    await ctl(rig, "clear_policy", "lossy")
    async with asyncio.timeout(STATISTICS_S):
        while not policies_are_fine(await doctor(rig, node)):  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(1.0)
    await rig.recovered()
    finding, judgement = await rig.judged("policy drop-head, found by doctor")
    findings.append(finding)

    failed = [check["words"] for check in harmed if check["state"] == "fail"]
    assert any(queue in words and "drop-head" in words for words in failed), failed
    assert policies_are_fine(before)
    assert judgement.problems == {}
    assert finding.held


def policies_are_fine(checks: list[dict[str, str]]) -> bool:
    return any(check["check"] == "policies" and check["state"] == "ok" for check in checks)


async def doctor(rig: Rig, node: ManagedNode) -> list[dict[str, str]]:
    """Return what `messaging doctor` finds."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "MESSAGING_BROKER_URL": node.url,
        "MESSAGING_MANAGEMENT_URL": node.management_url,
        "MESSAGING_KEYS": str(rig.folder / "keys"),
        "MESSAGING_NAMESPACE": rig.operator.names.namespace,
    }
    process = await asyncio.create_subprocess_exec(
        *guarded(sys.executable, "-m", "messaging", "doctor", "--json"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DOCTOR_S):
        out, _ = await process.communicate()
    checks: list[dict[str, str]] = json.loads(out)["checks"]
    return checks


# A worker that works writes a few lines for each message that fails; one that loops writes thousands.
LOUD_PER_S = 100.0


def events_per_s(rig: Rig) -> float:
    lines = sum(
        str(event["event"]).startswith(("transport.", "consumer."))
        for worker in rig.workers
        for event in worker.events()
    )
    return lines / HARM_S
