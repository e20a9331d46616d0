"""What a pass does with a letter that it takes, and with one that comes twice."""

import pytest

from messaging import Reject, Selection, Service, open_operator
from messaging.core.retry import RetryPolicy
from messaging.runtime.context import Context
from messaging.runtime.failpoint import Failpoint, Step
from tests.support.logs import Logs
from tests.support.shop import OrderPlaced, PlaceOrder
from tests.support.stage import OPERATOR, Stage


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


async def test_a_second_copy_of_one_failure_goes_with_the_first(logs: Logs) -> None:
    shop = Shop()
    async with Stage(shop.service) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        [body] = stage.bodies("orders", "dead")
        stage.broker.inject(stage.names.undeliverable_exchange("orders"), "", body)
        shop.is_open = True

        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            report = await operator.dead_letters.replay("orders", reason="once")
            await stage.settled()

        assert (report.looked_at, report.replayed, report.kept) == (2, 1, 0)
        assert shop.placed == [1]
        assert stage.depth("orders", "dead") == 0
        assert stage.depth("orders", "refused") == 0
        assert len(logs.of("dead_letter.repeated")) == 1


async def test_what_fails_again_is_not_taken_again_by_the_same_pass() -> None:
    shop = Shop()
    async with Stage(shop.service) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            first = await operator.dead_letters.replay("orders", reason="too early")
            await stage.settled()
            [again] = await operator.dead_letters.list("orders")

        assert first.replayed == 1
        assert (again.fault.replays, again.fault.attempts) == (1, 2)


async def test_a_service_whose_queue_is_missing_keeps_its_letters() -> None:
    shop = Shop()
    async with Stage(shop.service) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        await shop.service.stop()
        stage.broker.delete(stage.names.queue("orders", "commands"))

        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            report = await operator.dead_letters.replay("orders", reason="no queue", stop_after=1)

        assert (report.replayed, report.failed, report.kept) == (0, 1, 1)
        assert "there is no queue 'messaging.orders.commands'" in str(report.stopped_because)
        assert stage.depth("orders", "dead") == 1


async def test_a_discard_of_two_copies_takes_both() -> None:
    shop = Shop()
    async with Stage(shop.service) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        [body] = stage.bodies("orders", "dead")
        stage.broker.inject(stage.names.undeliverable_exchange("orders"), "", body)

        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            report = await operator.dead_letters.discard("orders", Selection(), reason="worthless")

        assert (report.discarded, report.kept) == (2, 0)


@pytest.mark.parametrize("event_name", ["orders.order_placed"])
async def test_events_go_back_to_the_events_queue(event_name: str) -> None:
    billing = Service("billing")
    runs: list[str | None] = []

    @billing.on_event(OrderPlaced)
    async def bill(event: OrderPlaced, context: Context) -> None:
        runs.append(context.replayed_by)
        if len(runs) == 1:
            raise Reject("no address")

    async with Stage(billing) as stage:
        await stage.publish(OrderPlaced(), sender="orders")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            report = await operator.dead_letters.replay("billing", reason="found it")
            await stage.settled()

    assert [letter.message_name for letter in report.letters] == [event_name]
    assert runs == [None, OPERATOR]


async def test_the_steps_of_a_replay_can_be_died_at() -> None:
    reached: list[Step] = []

    class Noted(Failpoint):
        def reach(self, step: Step) -> None:
            reached.append(step)

    shop = Shop()
    async with Stage(shop.service) as stage:
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            operator.dead_letters._failpoint = Noted(Step.BEFORE_REPLAY)
            await operator.dead_letters.replay("orders", reason="steps")

    assert reached == [Step.BEFORE_REPLAY, Step.AFTER_REPLAY, Step.AFTER_LETTER, Step.BEFORE_RETURN]
