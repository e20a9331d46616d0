"""`open_rig`: keys, a database, a proxy and an operator for one run, and the end of every process after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import create_async_engine

from messaging import Settings
from messaging.ambient import real_ambient
from messaging.cli.broker_node import PrivateNode
from messaging.core.topology import Subscriptions
from messaging.operators import open_operator
from messaging.security.development_files import Contract, init_development
from tests.chaos import resting
from tests.chaos.ledger import Ledger
from tests.chaos.rig import Rig
from tests.chaos.worker import books, bystander, chaos, skeptic, witness
from tests.support.installation import ROOT
from tests.support.proxy import TcpProxy

__all__ = ["open_rig"]

OPERATOR: Final = "ops:tester"
# How often workers log their tasks, seconds: the census waits for one such line.
COUNT_TASKS_S: Final = 1.0


@asynccontextmanager
async def open_rig(
    node: PrivateNode,
    folder: Path,
    *,
    seed: int,
    database_url: str = "",
    broker_url: str = "",
    **variables: str,
) -> AsyncIterator[Rig]:
    """Lend a rig without processes; all that are started end with the block.

    Args:
        node: A broker that runs.
        folder: Home of everything that is written.
        seed: Of chance.
        database_url: Of the workers; default: a SQLite file.
        broker_url: Nodes of a cluster, for everybody and without the proxy; default: the node.
        **variables: Further environment of all processes.
    """
    print(f"seed {seed}, folder {folder}")  # noqa: T201 - what repeats this run
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    namespace = f"chaos-{seed}-{real_ambient().new_id().hex[24:]}"
    settings = Settings(
        broker_url=broker_url or node.url,
        keys=folder / "keys",
        namespace=namespace,
        connect_timeout_s=60.0,
        requests_ha="MESSAGING_REQUESTS_HA" in variables,
    )
    contracts = {
        service.name: Contract(handles=service.subscriptions) for service in (books, witness, bystander, skeptic)
    }
    # Whoever is granted what a newer version handles may run the older one.
    newer = replace(
        chaos.subscriptions,
        commands=chaos.subscriptions.commands | {("chaos.extra", 1)},
        requests=chaos.subscriptions.requests | {("chaos.ask_extra", 1)},
    )
    contracts["chaos"] = Contract(handles=newer)
    contracts["load"] = Contract(handles=Subscriptions())
    init_development(folder / "keys", contracts, ambient=real_ambient(), operator=OPERATOR)
    database_url = database_url or f"sqlite+aiosqlite:///{folder / 'chaos.db'}"
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "MESSAGING_BROKER_URL": broker_url or node.url,
        "MESSAGING_KEYS": str(folder / "keys"),
        "MESSAGING_NAMESPACE": namespace,
        "MESSAGING_HEARTBEAT_S": "5",
        "MESSAGING_CONNECT_TIMEOUT_S": "60",
        "CHAOS_DATABASE_URL": database_url,
        resting.FOLDER: str(folder),
        "CHAOS_COUNT_TASKS_S": str(COUNT_TASKS_S),
        **variables,
    }
    engine = create_async_engine(database_url, pool_pre_ping=True)
    ledger = Ledger(engine)
    try:
        await ledger.create()
        async with TcpProxy("127.0.0.1", node.port) as proxy, open_operator(settings, OPERATOR) as operator:
            rig = Rig(node, proxy, operator, ledger, folder=folder, environment=environment, seed=seed)
            rig.is_proxied = not broker_url
            try:
                yield rig
            finally:
                await asyncio.to_thread(rig.stop)
    finally:
        await engine.dispose()
