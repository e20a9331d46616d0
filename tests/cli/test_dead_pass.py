"""What one pass over several services adds up to, and what it says when it cannot go on."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import pytest

from messaging.cli.dead_pass import ReplayOrder, discard_all, replay_all
from messaging.cli.exits import BusyError, Exit, NothingMatchedError
from messaging.core.dead_letter import DeadLetter, Selection
from messaging.core.fault import Fault
from messaging.errors import ConnectionLostError, TopologyConflictError
from messaging.runtime.dead_letters import DeadLetters, DiscardReport, ReplayProgress, ReplayReport

ALL = Selection()


def letter(number: int, *, why_not: str | None = None) -> DeadLetter:
    return DeadLetter(
        id=f"{number:032x}",
        service="orders",
        is_verified=True,
        fault=Fault(error="ValueError", reason="no"),
        is_replayable=why_not is None,
        why_not=why_not,
    )


class Queues(DeadLetters):
    """Dead letters that need no broker.

    Args:
        counts: How many letters each service has.
        failing: How many of a service fail to be replayed.
        why_not: Why none of them can be replayed.
        break_after: After so many letters `breaking` is raised: the connection is gone, or Ctrl-C was typed.
        entering: Raised before anything is looked at.
    """

    def __init__(
        self,
        counts: dict[str, int],
        *,
        failing: int = 0,
        why_not: str | None = None,
        break_after: int | None = None,
        breaking: BaseException | None = None,
        entering: BaseException | None = None,
    ) -> None:
        self.counts = counts
        self.limits: list[int | None] = []
        self._failing = failing
        self._why_not = why_not
        self._break_after = break_after
        self._breaking = breaking
        self._entering = entering

    async def each(self, service: str, selection: Selection = ALL) -> AsyncGenerator[DeadLetter, None]:
        for number in range(self.counts[service]):
            yield letter(number, why_not=self._why_not)

    async def replay(
        self,
        service: str,
        selection: Selection = ALL,
        *,
        reason: str,
        limit: int | None = None,
        rate_per_s: float | None = None,
        canary: int | None = None,
        force: bool = False,
        stop_after: int = 10,
        dry_run: bool = False,
        on_progress: Callable[[ReplayProgress], None] | None = None,
    ) -> ReplayReport:
        self._enter()
        self.limits.append(limit)
        total = 0 if self._why_not is not None else min(self.counts[service], limit or self.counts[service])
        for done in range(1, total + 1):
            if on_progress is not None:
                on_progress(ReplayProgress(total=total, looked_at=done, done=done, failed=0))
            if done == self._break_after and self._breaking is not None:
                raise self._breaking
        replayed = total - min(self._failing, total)
        return ReplayReport(
            looked_at=self.counts[service],
            replayed=replayed,
            failed=total - replayed,
            kept=self.counts[service] - replayed,
            stopped_because="3 failures in a row" if self._failing else None,
            letters=tuple(letter(number) for number in range(replayed)),
        )

    async def discard(self, service: str, selection: Selection, *, reason: str, dry_run: bool = False) -> DiscardReport:
        self._enter()
        count = self.counts[service]
        return DiscardReport(looked_at=count, discarded=count, kept=0, letters=())

    def _enter(self) -> None:
        if self._entering is not None:
            raise self._entering


async def test_services_are_taken_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    code = await replay_all(Queues({"orders": 2, "users": 1}), ["orders", "users"], ALL, order=ReplayOrder(reason="x"))

    assert code == Exit.OK
    assert capsys.readouterr().out.splitlines() == [
        "orders: replayed 2, 0 failed, 0 stay dead",
        "users: replayed 1, 0 failed, 0 stay dead",
    ]


async def test_services_without_dead_letters_are_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    await replay_all(Queues({"orders": 2, "users": 0}), ["orders", "users"], ALL, order=ReplayOrder(reason="x"))

    assert "users" not in capsys.readouterr().out


@pytest.mark.parametrize("order", [ReplayOrder(reason="x", limit=3), ReplayOrder(reason="x", limit=9, canary=3)])
async def test_a_bound_holds_over_all_services(order: ReplayOrder) -> None:
    queues = Queues({"orders": 2, "users": 5, "gateway": 5})

    await replay_all(queues, ["orders", "users", "gateway"], ALL, order=order)

    assert queues.limits == [3, 1]


async def test_failures_show_in_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code = await replay_all(Queues({"orders": 4}, failing=3), ["orders"], ALL, order=ReplayOrder(reason="x"))

    out, err = capsys.readouterr()
    assert code == Exit.FAILURE
    assert "replayed 1, 3 failed" in out
    assert "stopped after 3 failures in a row" in err


@pytest.mark.parametrize("breaking", [asyncio.CancelledError(), ConnectionLostError("no broker")])
async def test_a_broken_pass_says_how_far_it_came(breaking: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    queues = Queues({"orders": 10}, break_after=4, breaking=breaking)

    with pytest.raises(type(breaking)):
        await replay_all(queues, ["orders"], ALL, order=ReplayOrder(reason="x"))

    assert "stopped: 4 replayed, 6 were not and are still dead" in capsys.readouterr().err


@pytest.mark.parametrize("breaking", [asyncio.CancelledError(), ConnectionLostError("no broker")])
async def test_one_that_had_not_begun_has_nothing_to_add(
    breaking: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(breaking)):
        await replay_all(Queues({"orders": 1}, entering=breaking), ["orders"], ALL, order=ReplayOrder(reason="x"))

    assert capsys.readouterr() == ("", "")


async def test_another_pass_under_way_is_told_in_the_words_of_operators() -> None:
    taken = TopologyConflictError("lock 'messaging.orders.dead.lock' belongs to another connection alone")
    queues = Queues({"orders": 1}, entering=taken)

    with pytest.raises(BusyError, match="somebody else is replaying or discarding dead letters of 'orders'"):
        await replay_all(queues, ["orders"], ALL, order=ReplayOrder(reason="x"))
    with pytest.raises(BusyError):
        await discard_all(queues, ["orders"], ALL, reason="x", dry_run=False, is_json=False)


async def test_nothing_to_do_says_why() -> None:
    order = ReplayOrder(reason="x")
    with pytest.raises(NothingMatchedError, match="no dead letter matches in orders"):
        await replay_all(Queues({"orders": 0}), ["orders"], ALL, order=order)
    with pytest.raises(NothingMatchedError, match="cannot be replayed: a request is never"):
        await replay_all(Queues({"orders": 1}, why_not="a request is never replayed"), ["orders"], ALL, order=order)


async def test_discards_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    queues = Queues({"orders": 2, "users": 0})

    code = await discard_all(queues, ["orders", "users"], ALL, reason="x", dry_run=False, is_json=True)

    assert code == Exit.OK
    assert [entry["discarded"] for entry in json.loads(capsys.readouterr().out)] == [2, 0]
    with pytest.raises(NothingMatchedError):
        await discard_all(queues, ["users"], ALL, reason="x", dry_run=False, is_json=False)
