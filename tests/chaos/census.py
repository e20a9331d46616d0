"""The census: what workers hold while nothing is under way, counted before a load and after it (I9).

Of each service: its channels at the broker, and of its largest worker the tasks of the event loop, the threads and the
sockets. Files are left out: SQLite keeps some open for its pool.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from messaging.cli.broker_node import PrivateNode
from tests.chaos.programs import Worker
from tests.support.broker import CTL_TIMEOUT_S

__all__ = ["Census", "count", "grown"]

Census = Mapping[tuple[str, str], float]

_COUNTED_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.2


async def count(node: PrivateNode, workers: Sequence[Worker]) -> Census:
    """Count what workers hold: channels are the average of a service's workers, everything else is of the largest."""
    tasks = dict(zip(workers, await asyncio.gather(*map(_tasks, workers)), strict=True))
    listed = await asyncio.to_thread(
        node.ctl, "list_connections", "client_properties", "channels", "--formatter", "json", timeout_s=CTL_TIMEOUT_S
    )
    connections = [(json.dumps(row["client_properties"]), row["channels"]) for row in json.loads(listed)]
    found: dict[tuple[str, str], float] = {}
    for service in sorted({worker.service for worker in workers}):
        those = [worker for worker in workers if worker.service == service]
        # The name of a connection begins with that of its service.
        channels = sum(held for properties, held in connections if f'"{service} ' in properties)
        found[service, "channels"] = channels / len(those)
        found[service, "tasks"] = max(tasks[worker] for worker in those)
        found[service, "sockets"] = max(map(_sockets, those))
    return found


def grown(before: Census, after: Census, *, pool: int = 0) -> tuple[str, ...]:
    """Return in words what is more than it was.

    Args:
        before: While nothing had been done yet.
        after: While nothing is under way any more.
        pool: How many sockets to its database a worker keeps for the next message.
    """
    return tuple(
        f"{service}: {now:g} {figure}, {before[service, figure]:g} before"
        for (service, figure), now in after.items()
        if (service, figure) in before and now > before[service, figure] + (pool if figure == "sockets" else 0)
    )


async def _tasks(worker: Worker) -> float:
    """Return what the worker says next: what it said last may be of the time when it was still starting."""
    heard = len(_said(worker))
    deadline_s = time.monotonic() + _COUNTED_TIMEOUT_S
    while len(said := _said(worker)) <= heard:
        assert time.monotonic() < deadline_s, f"worker {worker.pid} does not count its tasks: {worker.last_words()}"
        await asyncio.sleep(_LOOK_S)
    return said[-1]


def _said(worker: Worker) -> list[float]:
    return [float(event["count"]) for event in worker.events() if event["event"] == "tasks.counted"]


def _sockets(worker: Worker) -> float:
    folder = Path("/proc") / str(worker.pid) / "fd"
    return float(sum(_is_socket(entry) for entry in folder.iterdir()))


def _is_socket(entry: Path) -> bool:
    try:
        return str(entry.readlink()).startswith("socket:")
    except OSError:
        return False
