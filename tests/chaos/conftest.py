"""Fixtures of the chaos runs. `make chaos` runs them; they are no part of `make test` (see tests/chaos/README.md).

`CHAOS_SEED` repeats a run, `CHAOS_ROUNDS` runs each fault with as many seeds, `CHAOS_SMOKE=1` keeps the fire short.
"""

import os
import re
import secrets
import shutil
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from messaging.cli.broker_node import PrivateNode
from tests.chaos.cluster import ClusterNode, run_cluster
from tests.chaos.findings import Finding, describe_machine, write_report
from tests.chaos.opening import open_rig
from tests.chaos.rig import Rig
from tests.support.broker import CTL_TIMEOUT_S, a_node, start_node
from tests.support.databases import postgres_server, postgres_url
from tests.support.installation import ROOT
from tests.support.postgres import PrivatePostgres, run_private_postgres

__all__ = ["postgres_server", "postgres_url"]

BUILD: Final = ROOT / "build" / "chaos"
SEED: Final = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
ROUNDS: Final = int(os.environ.get("CHAOS_ROUNDS") or 1)
IS_SMOKE: Final = bool(os.environ.get("CHAOS_SMOKE"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run everything that has a seed as often as there are rounds."""
    if "seed" in metafunc.fixturenames:
        name = zlib.crc32(metafunc.function.__name__.encode()) % 10_000
        metafunc.parametrize("seed", [SEED + 10_000 * number + name for number in range(ROUNDS)])


def pytest_report_header() -> str:
    """Say what repeats this run."""
    return f"chaos: CHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS}{' CHAOS_SMOKE=1' if IS_SMOKE else ''}"


@pytest.fixture(scope="session")
def _chaos_node() -> Iterator[PrivateNode]:
    with a_node("chaos") as node:
        yield node


@pytest.fixture
def chaos_node(_chaos_node: PrivateNode) -> PrivateNode:
    """A broker that runs when the test begins."""
    if not _chaos_node.is_ready:
        _chaos_node.kill()
        start_node(_chaos_node)
    return _chaos_node


@pytest.fixture(scope="session")
def fire_s() -> float:
    """How long the load flows while things go wrong, seconds."""
    return 8.0 if IS_SMOKE else 20.0


@pytest.fixture
def run_folder(request: pytest.FixtureRequest) -> Path:
    """Home of this run below build/chaos: history and logs stay there for whoever wants to know why."""
    folder = BUILD / re.sub(r"[^\w-]+", "-", request.node.name).strip("-")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
async def rig(chaos_node: PrivateNode, run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on SQLite without processes yet."""
    async with open_rig(chaos_node, run_folder, seed=seed) as opened:
        yield opened


@pytest.fixture
async def grouped_rig(chaos_node: PrivateNode, run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on SQLite whose workers handle up to ten deliveries in one transaction."""
    async with open_rig(chaos_node, run_folder, seed=seed, CHAOS_GROUP="10") as opened:
        yield opened


@pytest.fixture
async def memory_rig(chaos_node: PrivateNode, run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig whose workers remember in memory only what they handled."""
    async with open_rig(chaos_node, run_folder, seed=seed, CHAOS_INBOX="memory") as opened:
        yield opened


@pytest.fixture
async def postgres_rig(chaos_node: PrivateNode, run_folder: Path, seed: int, postgres_url: str) -> AsyncIterator[Rig]:
    """A rig on PostgreSQL without processes yet."""
    async with open_rig(chaos_node, run_folder, seed=seed, database_url=postgres_url) as opened:
        yield opened


@pytest.fixture
def private_postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL that the test may break."""
    with run_private_postgres() as server:
        yield server


@pytest.fixture
async def fragile_rig(
    chaos_node: PrivateNode, run_folder: Path, seed: int, private_postgres: PrivatePostgres
) -> AsyncIterator[Rig]:
    """A rig on a PostgreSQL that the test may break."""
    async with open_rig(chaos_node, run_folder, seed=seed, database_url=private_postgres.url) as opened:
        yield opened


@pytest.fixture
def cluster() -> Iterator[list[ClusterNode]]:
    """Three nodes that are one broker."""
    with run_cluster() as nodes:
        yield nodes


@pytest.fixture
async def cluster_rig(cluster: list[ClusterNode], run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on three nodes, without a proxy."""
    urls = ",".join(node.url for node in cluster)
    async with open_rig(cluster[0], run_folder, seed=seed, broker_url=urls) as opened:
        yield opened


@pytest.fixture
async def replicated_rig(cluster: list[ClusterNode], run_folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on three nodes whose requests wait in a replicated queue."""
    urls = ",".join(node.url for node in cluster)
    async with open_rig(cluster[0], run_folder, seed=seed, broker_url=urls, MESSAGING_REQUESTS_HA="1") as opened:
        yield opened


@pytest.fixture(scope="session")
def _findings(_chaos_node: PrivateNode) -> tuple[list[Finding], str]:
    if not _chaos_node.is_ready:
        start_node(_chaos_node)
    version = _chaos_node.ctl("eval", "rabbit_misc:version().", timeout_s=CTL_TIMEOUT_S).strip().strip('"')
    return [], version


@pytest.fixture
def findings(_findings: tuple[list[Finding], str]) -> Iterator[list[Finding]]:
    """What the runs of the session show; the report is written after each, so that an interrupted session has one."""
    found, version = _findings
    yield found
    found[:] = [replace(finding, broker=version) for finding in found]
    report = write_report(BUILD, found, machine=describe_machine(version))
    print(f"\n{report.read_text()}")  # noqa: T201 - the report is what the run is for
