"""What a store is told of failed runs, and that nothing depends on it."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from messaging.core.fault import HISTORY_MAX, Attempt
from messaging.core.inbox import Decision
from messaging.runtime.handling import Handling, Part
from messaging.runtime.run_history import RunHistory
from messaging.stores.base import InboxKey, Reservation, StoreUnavailableError

KEY = InboxKey("orders", "users", UUID(int=1))


class Runs:
    """Failed runs in a list, of a database that may be away."""

    def __init__(self) -> None:
        self.noted: list[tuple[InboxKey, Attempt]] = []
        self.is_away = False

    async def note(self, key: InboxKey, attempts: Sequence[Attempt]) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")
        self.noted += [(key, attempt) for attempt in attempts]

    async def of(self, key: InboxKey, *, limit: int) -> tuple[Attempt, ...]:
        if self.is_away:
            raise StoreUnavailableError("away")
        return tuple(attempt for noted, attempt in self.noted if noted == key)[-limit:]


def failed(*errors: str, decision: Decision = Decision.RUN) -> Handling:
    delivery: Any = type("Delivery", (), {"body": b"", "queue": "orders.commands"})()
    handling = Handling(delivery, Part.COMMANDS)
    handling.reservation = Reservation(key=KEY, decision=decision)
    handling.failures = tuple(Attempt(at_ms=at_ms, error=error) for at_ms, error in enumerate(errors))
    return handling


async def test_a_run_is_told_once_however_often_it_is_asked() -> None:
    runs, handling = Runs(), failed("A", "B")
    history = RunHistory(runs)

    await history.note(handling)
    await history.note(handling)

    assert [attempt.error for _, attempt in runs.noted] == ["A", "B"]


async def test_a_letter_tells_of_earlier_deliveries_too() -> None:
    runs = Runs()
    history = RunHistory(runs)
    await history.note(failed("A"))

    found = await history.of(failed("B"))

    assert [attempt.error for attempt in found] == ["A", "B"]
    assert len(runs.noted) == 2


async def test_a_letter_tells_of_so_many_at_most() -> None:
    found = await RunHistory(Runs()).of(failed(*map(str, range(2 * HISTORY_MAX))))

    assert [attempt.error for attempt in found] == [str(number) for number in range(HISTORY_MAX, 2 * HISTORY_MAX)]


async def test_while_the_database_is_away_a_letter_tells_of_this_delivery() -> None:
    runs, handling = Runs(), failed("B")
    history = RunHistory(runs)
    await history.note(failed("A"))
    runs.is_away = True

    found = await history.of(handling)

    assert [attempt.error for attempt in found] == ["B"]


async def test_what_could_not_be_told_is_told_the_next_time() -> None:
    runs, handling = Runs(), failed("A")
    history = RunHistory(runs)
    runs.is_away = True
    await history.note(handling)
    runs.is_away = False

    await history.note(handling)

    assert len(runs.noted) == 1


async def test_without_a_store_nothing_is_told() -> None:
    handling = failed("A")
    history = RunHistory(None)

    await history.note(handling)

    assert await history.of(handling) == ()
    assert handling.failures


async def test_what_holds_no_row_is_nobodys_run() -> None:
    runs = Runs()
    history = RunHistory(cast("Any", runs))

    await history.note(failed("A", decision=Decision.DROP))

    assert await history.of(failed("A", decision=Decision.DROP)) == ()
    assert runs.noted == []
