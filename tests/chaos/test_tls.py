"""Certificates under load: they expire, come from somebody else, and are renewed in place, here and at the broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from scripts.dev_certs import Issued
from tests.chaos.findings import Finding
from tests.chaos.opening import open_rig
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S
from tests.support.tls import HOST, TlsNode, a_tls_node, expired

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

WRONG_S: Final = 20.0
CLIENT: Final = "worker"
Act = Callable[[TlsNode], Issued]


@pytest.fixture
def tls_node() -> Iterator[TlsNode]:
    """A broker that demands client certificates."""
    with a_tls_node("chaos") as node:
        yield node


@pytest.fixture
async def tls_rig(tls_node: TlsNode, run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on SQLite whose workers and callers speak TLS."""
    mine = tls_node.authority.issue_client(CLIENT, CLIENT)
    variables = {
        "MESSAGING_BROKER_URL": tls_node.guest_url,
        "MESSAGING_TLS_CA_FILE": str(tls_node.authority.certificate_file),
        "MESSAGING_TLS_CERT_FILE": str(mine.certificate),
        "MESSAGING_TLS_KEY_FILE": str(mine.key),
    }
    async with open_rig(tls_node, run_folder, seed=seed, **variables) as rig:
        rig.is_proxied = False
        yield rig


def expired_broker(node: TlsNode) -> Issued:
    return node.authority.issue_broker("late", [HOST], **expired())


def strange_broker(node: TlsNode) -> Issued:
    return node.stranger.issue_broker("strange", [HOST])


def expired_client(node: TlsNode) -> Issued:
    node.authority.issue_client(CLIENT, CLIENT, **expired())
    return node.certificate


def renewed(node: TlsNode) -> Issued:
    node.authority.issue_client(CLIENT, CLIENT)
    return node.authority.issue_broker("broker", [HOST])


async def show(node: TlsNode, act: Act) -> None:
    """Issue certificates, and have every connection made anew with them."""
    await asyncio.to_thread(lambda: node.present(act(node)))
    await asyncio.to_thread(node.ctl, "close_all_connections", "chaos", timeout_s=CTL_TIMEOUT_S)


async def go_wrong(node: TlsNode, act: Act) -> None:
    await show(node, act)
    await asyncio.sleep(WRONG_S)
    await show(node, renewed)


async def renew(node: TlsNode, act: Act) -> None:
    for _ in range(3):
        await show(node, act)
        await asyncio.sleep(2)


@pytest.mark.parametrize(
    ("fault", "strike", "act", "words"),
    [
        pytest.param(
            f"TLS: the broker's certificate expired, {WRONG_S:.0f} s",
            go_wrong,
            expired_broker,
            "has expired",
            id="late",
        ),
        pytest.param(
            f"TLS: the broker's certificate of another CA, {WRONG_S:.0f} s",
            go_wrong,
            strange_broker,
            "not vouched for",
            id="strange",
        ),
        pytest.param(
            f"TLS: the workers' certificate expired, {WRONG_S:.0f} s",
            go_wrong,
            expired_client,
            "refuses the client certificate",
            id="client",
        ),
        pytest.param("TLS: all certificates renewed in place, 3 times", renew, renewed, "", id="renewed"),
    ],
)
async def test_certificates_change_under_load(
    tls_rig: Rig,
    tls_node: TlsNode,
    fault: str,
    strike: Callable[[TlsNode, Act], Awaitable[None]],
    act: Act,
    words: str,
    findings: list[Finding],
) -> None:
    rig = tls_rig
    await rig.start("witness")
    await rig.start(count=2)
    await rig.load()
    await asyncio.sleep(rig.chance.uniform(1, 3))

    await strike(tls_node, act)
    await rig.recovered()
    finding, judgement = await rig.judged(fault)
    findings.append(finding)

    said = {
        str(event.get("problem"))
        for worker in rig.workers
        for event in worker.events()
        if event["event"] == "transport.waiting"
    }
    assert all(worker.is_running for worker in rig.workers), "whoever meets a bad certificate waits for a better one"
    assert judgement.problems == {}
    assert finding.held
    assert not words or any(words in problem for problem in said), f"a clear error; there were {said}"
