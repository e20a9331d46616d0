"""Rows of the durable inbox are counted by sender, and too many are an alarm."""

import asyncio
from collections.abc import Mapping

from messaging.runtime.inbox_rows import InboxRows
from messaging.stores.base import StoreUnavailableError
from tests.support.logs import Logs
from tests.support.waiting import eventually


class Counts:
    """A store that tells what it is told to."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self.rows = rows
        self.is_away = False
        self.asked: list[tuple[str, float]] = []

    async def inbox_rows(self, service: str, *, within_s: float) -> Mapping[str, int]:
        self.asked.append((service, within_s))
        if self.is_away:
            raise StoreUnavailableError("the database does not answer")
        return self.rows


async def test_each_sender_beyond_the_limit_is_an_alarm(logs: Logs) -> None:
    counts = Counts({"shop": 11, "users": 10})
    rows = InboxRows(counts, service="orders", limit=10)

    await rows.look()

    [entry] = logs.of("inbox.crowded")
    assert (entry["sender"], entry["rows"], entry["limit"]) == ("shop", 11, 10)
    assert rows.per_sender == {"shop": 11, "users": 10}
    assert counts.asked == [("orders", 3_600.0)]


async def test_a_database_that_is_away_leaves_the_figures_as_they_were(logs: Logs) -> None:
    counts = Counts({"shop": 11})
    rows = InboxRows(counts, service="orders", limit=100)
    await rows.look()

    counts.is_away = True
    await rows.look()

    assert rows.per_sender == {"shop": 11}
    assert logs.events == []


async def test_it_looks_from_the_start_on() -> None:
    counts = Counts({"shop": 1})
    rows = InboxRows(counts, service="orders", limit=100)

    running = asyncio.create_task(rows.run())
    await eventually(lambda: rows.per_sender == {"shop": 1})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert len(counts.asked) == 1
