"""An operator's work on dead letters, through the same door as the command line's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from messaging import ConfigurationError, Context, PublishNotConfirmedError, Reject, Selection, Service, open_operator
from messaging.core.retry import RetryPolicy
from messaging.errors import TopologyConflictError
from messaging.runtime import dead_queue
from messaging.runtime.dead_letters import DeadLetters, ReplayProgress
from messaging.runtime.dead_window import WINDOW
from messaging.runtime.publisher import Publisher
from messaging.transports.base import QueueDepth
from messaging.transports.memory import MemoryTransport
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, OrderPlaced, PlaceOrder
from tests.support.stage import OPERATOR, Stage
from tests.support.waiting import eventually


class Shop:
    """Orders that fail until told otherwise."""

    def __init__(self) -> None:
        self.service = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))
        self.is_open = False
        self.placed: list[int] = []

        @self.service.on_command(PlaceOrder)
        async def place_order(command: PlaceOrder, context: Context) -> None:
            if not self.is_open:
                raise Reject("closed")
            self.placed.append(command.number)

        @self.service.on_command(CancelOrder)
        async def cancel_order(command: CancelOrder, context: Context) -> None:
            if not self.is_open:
                raise LookupError("no such order")


@asynccontextmanager
async def a_day_after(shop: Shop, *numbers: int) -> AsyncIterator[tuple[Stage, DeadLetters]]:
    """Let orders fail, one an hour, and give an operator's tools."""
    async with Stage(shop.service) as stage:
        for number in numbers:
            await stage.send(PlaceOrder(number=number), sender="users")
            await stage.advance(3600.0)
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            yield stage, operator.dead_letters


async def test_the_list_shows_what_failed_decrypted_and_oldest_first() -> None:
    async with a_day_after(Shop(), 1, 2) as (stage, letters):
        first, second = await letters.list("orders")

        assert [letter.payload for letter in (first, second)] == [{"number": n, "note": ""} for n in (1, 2)]
        assert first.is_verified
        assert first.is_replayable
        assert (first.message_name, first.sender, first.service) == ("orders.place_order", "users", "orders")
        assert (first.fault.error, first.fault.reason) == ("Reject", "closed")
        assert first.died_at_ms < second.died_at_ms
        assert stage.depth("orders", "dead") == 2


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(name="orders.place_order"), 2),
        (Selection(name="orders.cancel_order"), 0),
        (Selection(error="Reject"), 2),
        (Selection(sender="billing"), 0),
        (Selection(older_than_s=5400), 1),
        (Selection(younger_than_s=5400), 1),
        (Selection(ids=frozenset({"ffff"})), 0),
    ],
)
async def test_the_list_can_be_narrowed(selection: Selection, expected: int) -> None:
    async with a_day_after(Shop(), 1, 2) as (_, letters):
        assert len(await letters.list("orders", selection)) == expected


async def test_a_letter_is_found_by_the_beginning_of_its_id() -> None:
    async with a_day_after(Shop(), 1, 2) as (_, letters):
        first, _second = await letters.list("orders")

        assert await letters.list("orders", Selection(ids=frozenset({first.id[:12]}))) == [first]
        assert await letters.list("orders", Selection(ids=frozenset({str(first.message_id)}))) == [first]


async def test_groups_put_like_failures_together() -> None:
    async with a_day_after(Shop(), 1, 2) as (stage, letters):
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()

        groups = await letters.groups("orders")

        assert [(group.error, group.count) for group in groups] == [("Reject", 2), ("LookupError", 1)]
        assert groups[0].first_seen_ms < groups[0].last_seen_ms


async def test_a_service_without_a_dead_letter_queue_is_named() -> None:
    async with a_day_after(Shop()) as (_, letters):
        with pytest.raises(ConfigurationError, match="'billing'"):
            await letters.list("billing")


async def test_an_empty_queue_is_an_empty_list() -> None:
    async with a_day_after(Shop()) as (_, letters):
        assert await letters.list("orders") == []


async def test_a_replay_gives_all_that_is_selected_back(logs: Logs) -> None:
    shop = Shop()
    async with a_day_after(shop, 1, 2, 3) as (stage, letters):
        shop.is_open = True
        found = await letters.list("orders")

        report = await letters.replay("orders", Selection(ids=frozenset({found[1].id})), reason="open again")
        await stage.settled()

        assert (report.looked_at, report.replayed, report.kept, report.failed) == (3, 1, 2, 0)
        assert [letter.id for letter in report.letters] == [found[1].id]
        assert shop.placed == [2]
        assert stage.depth("orders", "dead") == 2
        [entry] = logs.of("dead_letter.replayed")
        assert (entry["operator"], entry["reason"], entry["id"]) == (OPERATOR, "open again", found[1].id)


async def test_a_dry_run_changes_nothing() -> None:
    shop = Shop()
    async with a_day_after(shop, 1, 2) as (stage, letters):
        shop.is_open = True

        replay = await letters.replay("orders", reason="try", dry_run=True)
        discard = await letters.discard("orders", Selection(), reason="try", dry_run=True)
        await stage.settled()

        assert (replay.replayed, discard.discarded) == (2, 2)
        assert shop.placed == []
        assert stage.depth("orders", "dead") == 2


@pytest.mark.parametrize("bounds", [{"limit": 2}, {"canary": 2}, {"limit": 5, "canary": 2}])
async def test_limit_and_canary_bound_a_pass_and_take_the_oldest(bounds: dict[str, int]) -> None:
    shop = Shop()
    async with a_day_after(shop, 1, 2, 3) as (stage, letters):
        shop.is_open = True

        report = await letters.replay("orders", reason="some", limit=bounds.get("limit"), canary=bounds.get("canary"))
        await stage.settled()

        assert (report.replayed, report.kept) == (2, 1)
        assert shop.placed == [1, 2]


async def test_too_many_failures_in_a_row_stop_a_pass_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    async with a_day_after(Shop(), *range(1, 41)) as (stage, letters):
        refused = PublishNotConfirmedError("full", message_id=UUID(int=1))

        async def refuse(*_: object, **__: object) -> None:
            raise refused

        monkeypatch.setattr(Publisher, "emit", refuse)
        report = await letters.replay("orders", reason="try", stop_after=3)

        # Those that were on their way when the third failed had begun; nothing begins afterwards.
        assert 3 <= report.failed <= WINDOW
        assert (report.replayed, report.kept) == (0, report.looked_at)
        assert report.stopped_because == "3 failures in a row, the last: full"
        assert stage.depth("orders", "dead") == 40
        assert len(logs.of("dead_letter.unreplayed")) == report.failed


async def test_a_failure_between_successes_does_not_stop_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    async with a_day_after(shop, 1, 2, 3) as (stage, letters):
        shop.is_open = True
        emit = Publisher.emit
        calls = 0

        async def sometimes(self: Publisher, *args: object, **values: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise PublishNotConfirmedError("full")
            await emit(self, *args, **values)  # type: ignore[arg-type]

        monkeypatch.setattr(Publisher, "emit", sometimes)
        report = await letters.replay("orders", reason="try", stop_after=2)
        monkeypatch.undo()
        await stage.settled()

        assert (report.replayed, report.failed, report.stopped_because) == (2, 1, None)
        assert shop.placed == [1, 3]
        assert stage.depth("orders", "dead") == 1


async def test_progress_is_told_after_each_letter() -> None:
    told: list[ReplayProgress] = []
    async with a_day_after(Shop(), 1, 2) as (_, letters):
        await letters.replay("orders", reason="try", on_progress=told.append)

    assert [(step.total, step.done, step.failed) for step in told] == [(2, 1, 0), (2, 2, 0)]
    assert told[-1].looked_at == 2


async def test_a_rate_spreads_a_pass_over_time() -> None:
    async with a_day_after(Shop(), 1, 2, 3) as (_, letters):
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await letters.replay("orders", reason="slowly", rate_per_s=50)

    assert loop.time() - started_s >= 0.04


async def test_two_passes_at_once_are_refused() -> None:
    async with a_day_after(Shop(), 1) as (stage, letters):
        async with letters._transport.lock(stage.names.lock(stage.names.queue("orders", "dead"))):
            with pytest.raises(TopologyConflictError, match="held"):
                await letters.replay("orders", reason="me too")

        report = await letters.replay("orders", reason="now")
        assert report.replayed == 1


async def test_a_pass_that_is_cancelled_leaves_every_letter_replayed_or_dead() -> None:
    shop = Shop()
    async with a_day_after(shop, 1, 2, 3) as (stage, letters):
        shop.is_open = True
        told: list[ReplayProgress] = []
        passing = asyncio.create_task(letters.replay("orders", reason="try", rate_per_s=0.1, on_progress=told.append))
        await eventually(lambda: bool(told))
        passing.cancel()
        await asyncio.wait([passing])
        await stage.settled()

        assert shop.placed == [1]
        assert stage.depth("orders", "dead") == 2
        load = stage.broker.loads()[stage.names.queue("orders", "dead")]
        assert load.unsettled == 0


async def test_what_comes_in_during_a_pass_is_for_the_next() -> None:
    async with a_day_after(Shop(), 1, 2) as (stage, letters):
        queue = stage.names.queue("orders", "dead")
        depth = stage.broker.depth(queue)

        async def stale(_: str) -> object:
            return type(depth)(messages=1, consumers=0) if depth is not None else None

        letters._transport.depth = stale  # type: ignore[method-assign, assignment]

        assert len(await letters.list("orders")) == 1
        assert stage.broker.loads()[queue].unsettled == 0


async def test_a_queue_that_was_emptied_meanwhile_does_not_hold_up_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_queue, "_QUIET_S", 0.01)
    async with a_day_after(Shop(), 1) as (_, letters):
        answers = [QueueDepth(messages=5, consumers=0), QueueDepth(messages=0, consumers=1)]

        async def stale(_: str) -> QueueDepth:
            return answers.pop(0) if len(answers) > 1 else answers[0]

        letters._transport.depth = stale  # type: ignore[method-assign, assignment]

        assert len(await letters.list("orders")) == 1


async def test_a_discard_removes_for_good_and_says_who_and_why(logs: Logs) -> None:
    async with a_day_after(Shop(), 1, 2) as (stage, letters):
        first, second = await letters.list("orders")

        report = await letters.discard("orders", Selection(ids=frozenset({first.id})), reason="a test order")

        assert (report.looked_at, report.discarded, report.kept) == (2, 1, 1)
        assert [letter.id for letter in report.letters] == [first.id]
        assert [letter.id for letter in await letters.list("orders")] == [second.id]
        [entry] = logs.of("dead_letter.discarded")
        assert (entry["operator"], entry["reason"], entry["message_id"]) == (
            OPERATOR,
            "a test order",
            str(first.message_id),
        )
        assert stage.depth("orders", "dead") == 1


async def test_what_cannot_be_verified_is_listed_kept_by_a_replay_and_taken_by_a_discard() -> None:
    async with a_day_after(Shop()) as (stage, letters):
        stage.broker.inject(stage.names.undeliverable_exchange("orders"), "", b"junk")
        [letter] = await letters.list("orders")
        assert (letter.is_verified, letter.fault.error, letter.is_replayable) == (False, "unverified", False)

        report = await letters.replay("orders", reason="try")
        assert (report.looked_at, report.replayed, report.kept) == (1, 0, 1)

        await letters.discard("orders", Selection(ids=frozenset({letter.id[:8]})), reason="junk")
        assert stage.depth("orders", "dead") == 0


async def test_events_are_given_back_to_the_events_queue() -> None:
    billing = Service("billing")
    runs = []

    @billing.on_event(OrderPlaced)
    async def bill(event: OrderPlaced, context: Context) -> None:
        runs.append(context.replayed_by)
        if len(runs) == 1:
            raise Reject("no address")

    async with Stage(billing) as stage:
        await stage.publish(OrderPlaced(), sender="orders")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            await operator.dead_letters.replay("billing", reason="found it")
            await stage.settled()

    assert runs == [None, OPERATOR]


async def test_an_operator_without_the_grant_fails_clearly_and_takes_nothing() -> None:
    async with a_day_after(Shop(), 1) as (stage, letters):
        stage.change_bundle(lambda payload: payload["policy"].update(replay=[]))

        report = await letters.replay("orders", reason="try", stop_after=1)

        assert report.failed == 1
        assert report.stopped_because is not None
        assert "policy.replay" in report.stopped_because
        assert stage.depth("orders", "dead") == 1


async def test_what_the_broker_gave_up_is_listed_with_its_reason_and_can_be_replayed() -> None:
    shop = Shop()
    async with Stage(shop.service) as stage:
        await shop.service.stop()
        stage.inject("orders", "commands", stage.sealed(PlaceOrder(number=5), "users"))
        transport = MemoryTransport(stage.broker, ambient=stage.clock.ambient)
        await transport.connect()
        await transport.consume(stage.names.queue("orders", "commands"), lambda delivery: delivery.reject(), prefetch=1)
        await eventually(lambda: stage.depth("orders", "dead") == 1)
        await transport.aclose()

        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            [letter] = await operator.dead_letters.list("orders")
            assert (letter.is_verified, letter.fault.error) == (True, "broker.delivery_limit")
            assert letter.payload == {"number": 5, "note": ""}

            shop.is_open = True
            await shop.service.start(seams=stage._seams)
            await operator.dead_letters.replay("orders", reason="mended")
            await stage.settled()
            assert shop.placed == [5]
