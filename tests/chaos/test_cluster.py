"""Three nodes: one, two and all of them are killed and come back, and one cannot see the others for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.cluster import ClusterNode
from tests.chaos.findings import Finding
from tests.chaos.history import Outcome, What, read_history
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

START_TIMEOUT_S = 180.0
DOWN_S = 60.0
PARTED_S = 40.0
# Twice: to reconnect and take another queue, and to be answered.
ALONE_S = 25.0
Strike = Callable[[Rig, list[ClusterNode]], Awaitable[None]]


async def kill_and_start(*nodes: ClusterNode) -> None:
    for node in nodes:
        await asyncio.to_thread(node.kill)
    await asyncio.sleep(3)
    # Together: a node that was not the last to go waits for the others.
    await asyncio.gather(*(asyncio.to_thread(node.start, START_TIMEOUT_S) for node in nodes))


async def kill_two(_rig: Rig, nodes: list[ClusterNode]) -> None:
    victims = nodes[1:]
    for node in victims:
        await asyncio.to_thread(node.kill)
    await asyncio.sleep(DOWN_S)
    await asyncio.gather(*(asyncio.to_thread(node.start, START_TIMEOUT_S) for node in victims))


async def part_leader(rig: Rig, nodes: list[ClusterNode]) -> None:
    await part(await leader(rig, nodes), nodes)


async def part_home(_rig: Rig, nodes: list[ClusterNode]) -> None:
    # The first of the list that clients have: most are connected to it.
    await part(nodes[0], nodes)


async def part(lonely: ClusterNode, nodes: list[ClusterNode]) -> None:
    others = [node for node in nodes if node is not lonely]
    for other in others:
        await asyncio.to_thread(lonely.separate, other)
    await asyncio.sleep(PARTED_S)
    for other in others:
        await asyncio.to_thread(lonely.rejoin, other)


async def leader(rig: Rig, nodes: list[ClusterNode]) -> ClusterNode:
    queue = rig.operator.names.queue("chaos", "commands")
    listed = await asyncio.to_thread(nodes[0].ctl, "list_queues", "name", "leader", timeout_s=120)
    name = next(line.split()[1] for line in listed.splitlines() if line.split()[:1] == [queue])
    return next(node for node in nodes if node.node_name == name)


async def kill_leader(rig: Rig, nodes: list[ClusterNode]) -> None:
    await kill_and_start(await leader(rig, nodes))


async def kill_each(_rig: Rig, nodes: list[ClusterNode]) -> None:
    for node in nodes:
        await kill_and_start(node)


async def kill_all(_rig: Rig, nodes: list[ClusterNode]) -> None:
    await kill_and_start(*nodes)


@pytest.mark.parametrize(
    ("fault", "strike"),
    [
        pytest.param("3 nodes, the queue's leader killed", kill_leader, id="leader"),
        pytest.param("3 nodes, killed one after the other", kill_each, id="each"),
        pytest.param("3 nodes, killed at once", kill_all, id="all"),
        pytest.param(f"3 nodes, two down for {DOWN_S:.0f} s", kill_two, id="two"),
        pytest.param(f"3 nodes, the leader's parted for {PARTED_S:.0f} s", part_leader, id="part-leader"),
        pytest.param(f"3 nodes, the clients' parted for {PARTED_S:.0f} s", part_home, id="part-home"),
    ],
)
async def test_nodes_of_a_cluster_are_killed(
    cluster_rig: Rig, cluster: list[ClusterNode], fault: str, strike: Strike, findings: list[Finding]
) -> None:
    rig = cluster_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(rate=25.0)

    await strike(rig, cluster)
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)

    assert judgement.problems == {}
    assert finding.held


async def test_answers_go_on_while_the_node_of_their_queue_is_down(
    cluster_rig: Rig, cluster: list[ClusterNode], findings: list[Finding]
) -> None:
    rig, lonely, others = cluster_rig, cluster[0], cluster[1:]
    elsewhere = ",".join(node.url for node in others)
    # The queue of requests lives with those who answer, that of answers with whoever asks.
    await rig.start("witness", MESSAGING_BROKER_URL=elsewhere)
    await rig.start(count=2, MESSAGING_BROKER_URL=elsewhere)
    await rig.load(rate=25.0, mix={What.ASK: 1}, MESSAGING_BROKER_URL=f"{lonely.url},{elsewhere}")

    await asyncio.to_thread(lonely.kill)
    await asyncio.sleep(ALONE_S)
    settled_s = time.time()
    await asyncio.sleep(ALONE_S)
    down_s = time.time()
    await asyncio.to_thread(lonely.start, START_TIMEOUT_S)
    await rig.recovered()
    finding, judgement = await rig.judged(f"3 nodes, that of the answers down for {2 * ALONE_S:.0f} s")
    findings.append(finding)

    asked = [call for call in read_history(rig.history_file).values() if settled_s < call.began_s < down_s]
    assert asked
    assert all(call.outcome is Outcome.CONFIRMED for call in asked), "whoever asked anew got an answer"
    assert judgement.problems == {}
    assert finding.held


async def test_a_replicated_queue_of_requests_outlives_its_node(
    replicated_rig: Rig, cluster: list[ClusterNode], findings: list[Finding]
) -> None:
    rig, first, others = replicated_rig, cluster[0], cluster[1:]
    elsewhere = ",".join(node.url for node in others)
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load(rate=25.0, mix={What.ASK: 1}, MESSAGING_BROKER_URL=elsewhere)

    await asyncio.to_thread(first.kill)
    await asyncio.sleep(ALONE_S)
    settled_s = time.time()
    await asyncio.sleep(ALONE_S)
    down_s = time.time()
    await asyncio.to_thread(first.start, START_TIMEOUT_S)
    await rig.recovered()
    finding, judgement = await rig.judged(f"3 nodes, that of replicated requests down for {2 * ALONE_S:.0f} s")
    findings.append(finding)

    asked = [call for call in read_history(rig.history_file).values() if settled_s < call.began_s < down_s]
    assert asked
    assert all(call.outcome is Outcome.CONFIRMED for call in asked), "requests are answered without that node"
    assert judgement.problems == {}
    assert finding.held
