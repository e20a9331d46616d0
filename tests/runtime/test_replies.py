"""Answers: looked up before they are believed, believed only from whom the question went to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID, uuid4

import pytest

from messaging import Context, RequestTimeoutError, Service, UnroutableError
from messaging.core.codec import pack_plain
from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.sealed import Label, Route, Sealed
from messaging.core.topology import Subscriptions
from messaging.runtime.publisher import Publisher
from messaging.runtime.replies import Replies
from messaging.security.verified import Verified
from messaging.transports.base import Confirm, Delivery, LinkState, Subscription, TransportState
from tests.support.logs import Logs
from tests.support.shop import CountOrders
from tests.support.stage import Stage
from tests.support.waiting import eventually

REQUESTS = Subscriptions(requests=frozenset({("orders.count_orders", 1)}), rungs_ms=(1_000,))


class Asking:
    """One request of users under way, and what somebody makes of it."""

    def __init__(self, stage: Stage, users: Publisher, asked: Verified, task: "asyncio.Task[int]") -> None:
        self.stage = stage
        self.replies: Replies = users._replies
        self.asked = asked
        self.task = task

    def answer(self, value: object = 1, *, sender: str = "orders", **changes: object) -> bytes:
        """Return an answer, right but for the changes."""
        now_ms = self.stage.clock.now_ms()
        values = {
            "id": self.stage.clock.ambient.new_id(),
            "kind": Kind.REPLY,
            "name": self.asked.name,
            "version": 1,
            "sender": sender,
            "audience": "users",
            "issued_at_ms": now_ms,
            "expires_at_ms": now_ms + 1_000,
            "payload": pack_plain({"ok": value}, CODEC_MSGPACK),
            "correlation_id": self.asked.id,
            "bind": self.asked.leaf,
        }
        made = Envelope(**(values | changes))  # type: ignore[arg-type]
        return self.stage.sealer(sender).seal(made, routing_key=self.replies.queue)

    async def deliver(self, body: bytes) -> None:
        self.stage.broker.inject(self.stage.names.replies, self.replies.queue, body)
        await self.stage.settled()


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with a_request(timeout_s=60.0) as found:
        yield found


@asynccontextmanager
async def a_request(*, timeout_s: float) -> AsyncIterator[Asking]:
    async with Stage() as stage:
        stage.trust.join("orders", REQUESTS)
        stage.trust.join("billing")
        stage.broker.declare(stage.names.of_service("orders", REQUESTS))
        users = await stage._publisher("users")
        task = asyncio.create_task(users.request(CountOrders(), timeout_s=timeout_s))
        await eventually(lambda: stage.depth("orders", "requests") == 1)
        [body] = stage.bodies("orders", "requests")
        asked = stage.opener("orders").verify(body, kinds=frozenset({Kind.REQUEST}))
        yield Asking(stage, users, asked, task)
        task.cancel()
        await asyncio.wait([task])


async def test_the_true_answer_is_taken_and_the_entry_is_gone(asking: Asking) -> None:
    await asking.deliver(asking.answer(7))

    assert await asking.task == 7
    assert len(asking.replies) == 0


async def test_a_second_answer_goes_nowhere(asking: Asking, logs: Logs) -> None:
    await asking.deliver(asking.answer(7))
    await asking.deliver(asking.answer(8))

    assert await asking.task == 7
    assert logs.events.count("reply.unmatched") == 1


async def test_two_answers_in_one_turn_are_one(asking: Asking) -> None:
    for value in (7, 8):
        body = asking.answer(value)
        asking.stage.broker.inject(asking.stage.names.replies, asking.replies.queue, body)
    await asking.stage.settled()

    assert await asking.task == 7
    assert asking.replies.unmatched == 1


async def test_an_answer_that_overtakes_the_confirm_of_its_request_is_taken(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, depth = await asking.stage._publisher("users"), asking.stage.depth("orders", "requests")
    submit, held = users._transport.submit, list[Confirm]()

    def unconfirmed(sealed: Sealed, route: Route, label: Label, timeout_s: float, outcome: Confirm) -> None:
        held.append(outcome)
        nobody: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        submit(sealed, route, label, timeout_s=timeout_s, outcome=nobody)

    monkeypatch.setattr(users._transport, "submit", unconfirmed)
    task = asyncio.create_task(users.request(CountOrders(), timeout_s=60.0))
    await eventually(lambda: asking.stage.depth("orders", "requests") == depth + 1)
    body = asking.stage.bodies("orders", "requests")[-1]
    asked = asking.stage.opener("orders").verify(body, kinds=frozenset({Kind.REQUEST}))
    await asking.deliver(asking.answer(7, correlation_id=asked.id, bind=asked.leaf))

    assert await task == 7
    assert held[0].done()


async def test_a_request_that_its_broker_refuses_fails_at_once(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    users = await asking.stage._publisher("users")

    def refusing(_: Sealed, __: Route, ___: Label, timeout_s: float, outcome: Confirm) -> None:
        outcome.set_exception(UnroutableError("nobody", routing_key="k"))
        outcome.set_exception(UnroutableError("told twice", routing_key="k"))

    monkeypatch.setattr(users._transport, "submit", refusing)

    with pytest.raises(UnroutableError, match="nobody"):
        await users.request(CountOrders(), timeout_s=60.0)
    assert len(users._replies) == 1


async def test_junk_is_dropped(asking: Asking) -> None:
    await asking.deliver(b"junk")
    await asking.deliver(asking.answer(7))

    assert await asking.task == 7
    assert asking.replies.unmatched == 1


async def test_an_answer_to_an_unknown_question_is_dropped(asking: Asking) -> None:
    await asking.deliver(asking.answer(6, correlation_id=uuid4()))
    await asking.deliver(asking.answer(7))

    assert await asking.task == 7


@pytest.mark.parametrize(
    ("sender", "changes"),
    [("billing", {"name": "billing.count_orders"}), ("orders", {"bind": bytes(32)}), ("orders", {"version": 2})],
    ids=["wrong service", "wrong bind", "wrong type"],
)
async def test_a_wrong_answer_does_not_take_the_place_of_the_true_one(
    asking: Asking, logs: Logs, sender: str, changes: dict[str, object]
) -> None:
    await asking.deliver(asking.answer(6, sender=sender, **changes))
    assert not asking.task.done()
    assert [entry["code"] for entry in logs.of("reply.refused")] == ["audience"]

    await asking.deliver(asking.answer(7))
    assert await asking.task == 7


async def test_a_forged_answer_does_not_take_the_place_of_the_true_one(asking: Asking, logs: Logs) -> None:
    body = asking.answer(6)
    forged = body[:-10] + bytes([body[-10] ^ 1]) + body[-9:]
    await asking.deliver(forged)
    await asking.deliver(asking.answer(7))

    assert await asking.task == 7
    assert [entry["code"] for entry in logs.of("reply.refused")] == ["signature"]


async def test_a_late_answer_is_dropped() -> None:
    async with a_request(timeout_s=0.03) as asking:
        with pytest.raises(RequestTimeoutError):
            await asking.task
        await asking.deliver(asking.answer(7))

        assert asking.replies.unmatched == 1
        assert len(asking.replies) == 0


async def test_a_cancelled_request_leaves_no_entry(asking: Asking) -> None:
    asking.task.cancel()
    await asyncio.wait([asking.task])

    assert len(asking.replies) == 0


async def test_a_question_repeated_before_its_answer_came_has_an_answer_of_its_own() -> None:
    orders, runs, gate = Service("orders"), list[UUID](), asyncio.Event()

    @orders.on_request(CountOrders)
    async def count(request: CountOrders, context: Context) -> int:
        runs.append(context.message_id)
        await gate.wait()
        return 7

    async with Stage(orders) as stage:
        users, message_id = await stage._publisher("users"), uuid4()
        first = asyncio.create_task(users.request(CountOrders(), message_id=message_id))
        await eventually(lambda: runs == [message_id])
        second = asyncio.create_task(users.request(CountOrders(), message_id=message_id))
        await eventually(lambda: len(users._replies._pending[message_id]) == 2)
        gate.set()

        assert (await first, await second) == (7, 7)
        assert len(users._replies) == 0
    assert runs == [message_id]


async def test_the_queue_is_declared_once_whoever_asks_first(asking: Asking) -> None:
    await asyncio.gather(asking.replies.open(), asking.replies.open())

    depth = asking.stage.broker.depth(asking.replies.queue)
    assert depth is not None
    assert depth.consumers == 1


async def test_the_first_requests_open_the_queue_together() -> None:
    async with Stage() as stage:
        stage.trust.join("orders", REQUESTS)
        stage.broker.declare(stage.names.of_service("orders", REQUESTS))
        users = await stage._publisher("users")
        tasks = [asyncio.create_task(users.request(CountOrders(), timeout_s=0.05)) for _ in range(3)]
        await asyncio.wait(tasks)

        depth = stage.broker.depth(users._replies.queue)
        assert depth is not None
        assert depth.consumers == 1
        assert all(isinstance(task.exception(), RequestTimeoutError) for task in tasks)


class Dark:
    """A subscription that the broker does not feed: the node of its queue is down."""

    is_live = False

    def __init__(self) -> None:
        self.is_cancelled = False

    async def cancel(self) -> None:
        self.is_cancelled = True


async def test_while_the_node_of_its_queue_is_down_it_takes_another_queue(asking: Asking, logs: Logs) -> None:
    replies, stage, dark = asking.replies, asking.stage, Dark()
    before = replies.queue
    replies._subscription = cast("Subscription", dark)

    await replies.open()
    patient = replies.queue
    stage.clock.advance(10_000)
    await asyncio.gather(replies.open(), replies.open())

    assert (patient, dark.is_cancelled) == (before, True)
    assert replies.queue != before
    assert len(replies.queue) == len(before)
    depth = stage.broker.depth(replies.queue)
    assert depth is not None
    assert depth.consumers == 1
    assert [(entry["before"], entry["queue"]) for entry in logs.of("replies.moved")] == [(before, replies.queue)]


async def test_a_queue_that_is_fed_again_in_time_is_kept(asking: Asking) -> None:
    replies, before, fed = asking.replies, asking.replies.queue, asking.replies._subscription

    for _ in range(3):
        replies._subscription = cast("Subscription", Dark())
        await replies.open()
        replies._subscription = fed
        await replies.open()
        asking.stage.clock.advance(10_000)

    assert replies.queue == before


async def test_without_a_broker_nothing_moves(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    replies, before = asking.replies, asking.replies.queue
    replies._subscription = cast("Subscription", Dark())
    monkeypatch.setattr(type(replies._transport), "state", TransportState(link=LinkState.CONNECTING))

    for _ in range(3):
        await replies.open()
        asking.stage.clock.advance(10_000)

    assert replies.queue == before


async def test_a_question_that_was_put_before_the_move_names_the_new_queue(asking: Asking) -> None:
    replies, stage = asking.replies, asking.stage
    users = await stage._publisher("users")
    replies._subscription = cast("Subscription", Dark())
    await replies.open()
    stage.clock.advance(10_000)

    task = asyncio.create_task(users.request(CountOrders(), timeout_s=60.0))
    await eventually(lambda: stage.depth("orders", "requests") == 2)
    body = stage.bodies("orders", "requests")[-1]
    asked = stage.opener("orders").verify(body, kinds=frozenset({Kind.REQUEST}))
    await asking.deliver(asking.answer(7, correlation_id=asked.id, bind=asked.leaf))

    assert asked.header.rto == replies.queue
    assert await task == 7


class Handed:
    """A delivery of the reply queue, as far as settling goes."""

    def __init__(self, body: bytes = b"junk") -> None:
        self.body = body
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1


def hand(replies: Replies, *bodies: bytes) -> list[Handed]:
    handed = [Handed(body) for body in bodies]
    for delivery in handed:
        replies._arrived(cast("Delivery", delivery))
    return handed


async def test_answers_are_acknowledged_together_soon(asking: Asking) -> None:
    handed = hand(asking.replies, b"a", b"b", b"c")
    assert [delivery.acks for delivery in handed] == [0, 0, 0]

    await eventually(lambda: handed[2].acks > 0, what="the answers were acknowledged")

    assert [delivery.acks for delivery in handed] == [1, 1, 1]


async def test_many_answers_are_acknowledged_at_once(asking: Asking) -> None:
    handed = hand(asking.replies, *([b"junk"] * 65))

    # The last one begins anew.
    assert [delivery.acks for delivery in handed] == [1] * 64 + [0]


async def test_a_large_answer_is_not_held(asking: Asking) -> None:
    handed = hand(asking.replies, b"small", bytes(20_000))

    assert [delivery.acks for delivery in handed] == [1, 1]


async def test_closing_acknowledges_what_was_held(asking: Asking) -> None:
    handed = hand(asking.replies, b"a", b"b")

    await asking.replies.aclose()

    assert [delivery.acks for delivery in handed] == [1, 1]


async def test_closing_stops_listening(asking: Asking) -> None:
    await asking.replies.aclose()

    depth = asking.stage.broker.depth(asking.replies.queue)
    assert depth is not None
    assert depth.consumers == 0


async def test_closing_what_was_never_opened_is_fine() -> None:
    async with Stage() as stage:
        users = await stage._publisher("users")
        await users._replies.aclose()

        assert stage.broker.depth(users._replies.queue) is None


async def test_the_callers_deadline_comes_before_that_of_the_requests_own_confirm(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise a slow answer would be taken for a channel that confirms nothing, and cost that channel.
    users, seen = await asking.stage._publisher("users"), list[float]()

    def silent(_: Sealed, __: Route, ___: Label, timeout_s: float, outcome: Confirm) -> None:
        seen.append(timeout_s)

    monkeypatch.setattr(users._transport, "submit", silent)

    with pytest.raises(RequestTimeoutError):
        await users.request(CountOrders(), timeout_s=0.01)
    assert seen[0] >= 1.0
