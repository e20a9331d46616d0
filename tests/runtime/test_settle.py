"""Verdicts carried out: confirmed first, recorded second, acknowledged last."""

import asyncio
from itertools import pairwise

import pytest

from messaging import Context, Fault, Reject, RetryPolicy, Service
from messaging.core.codec import PAYLOAD_MAX_BYTES, encode_model
from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.topology import Binding, Queue, Topology, dead_routing_key
from messaging.runtime import settle
from messaging.runtime.settle import SAMPLE_MAX_BYTES, SAMPLES_PER_S
from messaging.security.content import pack_fault
from messaging.security.outer import leaf_of
from messaging.security.suite import fault_id
from messaging.stores.base import Reservation, StoreUnavailableError
from messaging.stores.memory import MemoryInbox
from messaging.transports.memory.consumer import MemoryDelivery
from tests.support.logs import Logs
from tests.support.shop import CancelOrder, CountOrders, OrderPlaced, OrderUnknown, PlaceOrder
from tests.support.stage import OPERATOR, Stage
from tests.support.waiting import eventually, holds


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_BACKOFF_FIRST_S", 0.01)


def rejecting() -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("sold out")

    return orders


def failing() -> Service:
    orders = Service("orders", retry=RetryPolicy(immediate=0))

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise ConnectionError

    return orders


def listening(heard: list[tuple[Fault, Context]]) -> Service:
    users = Service("users")

    @users.on_fault(PlaceOrder)
    async def order_failed(fault: Fault, context: Context) -> None:
        heard.append((fault, context))

    return users


def a_fault(stage: Stage, original: bytes) -> bytes:
    """Return the fault by which orders would bury a sealed command of users."""
    now_ms = stage.clock.now_ms()
    fault = Envelope(
        id=fault_id(leaf_of(original), 0),
        kind=Kind.FAULT,
        name="orders.place_order",
        version=1,
        sender="orders",
        audience="users",
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + 1_000,
        payload=pack_fault(original, {"error": "E", "reason": "r"}),
        bind=leaf_of(original),
    )
    return stage.sealer("orders").seal(fault, routing_key=dead_routing_key("orders", "users"))


def spy_on_faults(stage: Stage) -> None:
    stage.broker.declare(
        Topology(
            exchanges=stage.names.shared().exchanges,
            queues=(Queue(name="faults-spy"),),
            bindings=(Binding(exchange=stage.names.dead, queue="faults-spy", routing_key="#"),),
        )
    )


async def test_a_retry_carries_the_same_bytes_and_counts_attempts() -> None:
    orders = Service("orders")
    runs = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context.attempt)
        raise ConnectionError

    async with Stage(orders) as stage:
        stage.spy()
        await stage.send(PlaceOrder(), sender="users")
        seen = []
        for delay_s in (1, 5, 30, 120, 600):
            await stage.settled()
            [parcel] = stage.broker.queue(stage.names.rung("orders", delay_s * 1000)).parcels()
            seen.append((parcel.body, parcel.headers["x-attempt"], parcel.routing_key))
            await stage.advance(delay_s)

        assert [body for body, _, _ in seen] == stage.spied() * 5
        assert [attempt for _, attempt, _ in seen] == [3, 4, 5, 6, 7]
        assert {key for _, _, key in seen} == {"messaging.orders.commands"}
        assert runs == [1, 2, 3, 4, 5, 6, 7]


async def test_the_fault_of_a_command_reaches_its_origin_once() -> None:
    heard: list[tuple[Fault, Context]] = []

    async with Stage(rejecting(), listening(heard)) as stage:
        spy_on_faults(stage)
        message_id = await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        [letter] = stage.broker.bodies("faults-spy")
        stage.inject("users", "faults", letter)
        await stage.settled()

        [(fault, context)] = heard
        assert (fault.error, fault.reason, fault.service) == ("Reject", "sold out", "orders")
        assert (fault.message_name, fault.message_id) == ("orders.place_order", str(message_id))
        assert (context.message_id, context.correlation_id) == (message_id, message_id)
        assert stage.depth("orders", "dead") == 1
        assert stage.depth("users", "dead") == 0


async def test_a_second_burial_of_the_same_failure_is_a_duplicate_at_the_origin() -> None:
    heard: list[tuple[Fault, Context]] = []

    async with Stage(rejecting(), listening(heard)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        for _ in range(2):
            stage.inject("users", "faults", a_fault(stage, body))
        await stage.settled()

    assert [fault.error for fault, _ in heard] == ["E"]


async def test_a_fault_for_a_command_that_was_never_sent_does_not_run() -> None:
    heard: list[tuple[Fault, Context]] = []

    async with Stage(rejecting(), listening(heard)) as stage:
        letter = a_fault(stage, stage.sealed(PlaceOrder(), "billing"))
        stage.inject("users", "faults", letter)
        await stage.settled()

        assert heard == []
        assert stage.bodies("users", "refused") == [letter]


async def test_a_failing_on_fault_is_buried_as_it_is_and_nobody_is_told() -> None:
    users = Service("users")

    @users.on_fault(PlaceOrder)
    async def order_failed(fault: Fault, context: Context) -> None:
        raise ConnectionError

    async with Stage(rejecting(), users) as stage:
        spy_on_faults(stage)
        await stage.send(PlaceOrder(), sender="users")
        await stage.advance(1_000)

        assert len(stage.calls(order_failed)) == 7
        [letter] = stage.broker.bodies("faults-spy")
        assert stage.bodies("users", "dead") == [letter]
        [shown] = stage.dead("users")
        assert (shown.is_verified, shown.is_replayable) == (False, False)


async def test_a_fault_that_no_handler_wants_is_dropped(logs: Logs) -> None:
    heard: list[tuple[Fault, Context]] = []
    orders = Service("orders")

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        raise Reject("too late")

    async with Stage(orders, listening(heard)) as stage:
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()

        assert heard == []
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["unheard"]
        assert stage.depth("users", "faults") == stage.depth("users", "retry.1000") == stage.depth("users", "dead") == 0
        assert stage.depth("orders", "dead") == 1


async def test_the_fault_of_an_event_stays_with_the_service_that_failed() -> None:
    heard: list[tuple[Fault, Context]] = []
    billing = Service("billing")

    @billing.on_event(OrderPlaced)
    async def bill(event: OrderPlaced, context: Context) -> None:
        raise Reject("no address")

    async with Stage(billing, listening(heard)) as stage:
        spy_on_faults(stage)
        await stage.publish(OrderPlaced(), sender="orders")
        await stage.settled()

        [parcel] = stage.broker.queue("faults-spy").parcels()
        assert parcel.routing_key == "dead.billing"
        assert [letter.fault.reason for letter in stage.dead("billing")] == ["no address"]


async def test_the_fault_of_an_operators_command_goes_to_nobody_else() -> None:
    async with Stage(rejecting()) as stage:
        spy_on_faults(stage)
        await stage.send(PlaceOrder(), sender=OPERATOR)
        await stage.settled()

        [parcel] = stage.broker.queue("faults-spy").parcels()
        assert parcel.routing_key == "dead.orders"
        assert [letter.sender for letter in stage.dead("orders")] == [OPERATOR]


async def test_an_origin_that_left_the_trust_bundle_does_not_keep_its_letter_from_burial() -> None:
    async with Stage(rejecting()) as stage:
        body = stage.sealed(PlaceOrder(), "users")

        def drop_keys(payload: dict[str, dict[str, dict[str, object]]]) -> None:
            payload["services"]["users"]["enc"] = []

        stage.change_bundle(drop_keys, only=["orders"])
        stage.inject("orders", "commands", body)
        await stage.settled()

        [letter] = stage.dead("orders")
        assert (letter.fault.reason, letter.sender) == ("sold out", "users")


async def test_while_the_rung_takes_nothing_the_delivery_stays_unacknowledged(logs: Logs) -> None:
    orders = failing()

    async with Stage(orders) as stage:
        stage.broker.delete(stage.names.rung("orders", 1_000))
        await stage.send(PlaceOrder(), sender="users")
        await eventually(lambda: logs.events.count("delivery.unsettled") >= 3)
        assert stage.broker.loads()[stage.names.queue("orders", "commands")].unsettled == 1

        stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
        await stage.settled()
        assert stage.depth("orders", "commands") == 0
        assert stage.depth("orders", "retry.1000") == 1


async def test_while_the_dead_letter_queue_is_gone_the_letter_waits_with_its_fault(logs: Logs) -> None:
    orders = rejecting()

    async with Stage(orders) as stage:
        stage.broker.delete(stage.names.queue("orders", "dead"))
        await stage.send(PlaceOrder(), sender="users")
        await eventually(lambda: logs.events.count("delivery.unsettled") >= 3)
        assert stage.depth("orders", "commands") == 1

        stage.broker.declare(stage.names.of_service("orders", orders.subscriptions))
        await stage.settled()
        assert [letter.fault.reason for letter in stage.dead("orders")] == ["sold out"]
        assert stage.depth("orders", "commands") == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Reject("sold out"), "sold out"),
        (ValueError("UNIQUE failed [parameters: ('ada@example.org',)]"), None),
        (OrderUnknown(number=1234567), None),
    ],
)
async def test_words_of_foreign_exceptions_may_hold_values_and_are_not_logged(
    error: Exception, words: str | None, logs: Logs
) -> None:
    orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise error

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()

        [letter] = stage.dead("orders")
        assert letter.fault.reason == str(error)
    [entry] = logs.of("delivery.buried")
    assert (entry["error"], entry["fault"]) == (letter.fault.error, words)
    assert "ada@" not in str(logs.entries)
    assert "1234567" not in str(logs.entries)


async def test_while_the_inbox_is_away_a_letter_is_written_once_and_then_recorded(
    monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    orders = rejecting()
    record = MemoryInbox.fail
    outages = iter(range(3))

    async def fail(inbox: MemoryInbox, reservation: Reservation) -> bool:
        if next(outages, None) is not None:
            raise StoreUnavailableError("the database does not answer")
        return await record(inbox, reservation)

    monkeypatch.setattr(MemoryInbox, "fail", fail)
    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await eventually(lambda: "delivery.buried" in logs.events)
        await stage.settled()

        assert len(logs.of("delivery.unsettled")) == 3
        assert len(stage.dead("orders")) == 1


async def test_what_is_given_back_returns_though_the_inbox_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Service("orders")
    started = asyncio.Event()

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    async def release(inbox: MemoryInbox, reservation: Reservation) -> bool:
        raise StoreUnavailableError("the database does not answer")

    monkeypatch.setattr(MemoryInbox, "release", release)
    given_back: list[int] = []
    give_back = MemoryDelivery.give_back

    def given(delivery: MemoryDelivery) -> None:
        given_back.append(1)
        give_back(delivery)

    monkeypatch.setattr(MemoryDelivery, "give_back", given)
    async with Stage(orders, drain_timeout_s=0.01) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await started.wait()
        await orders.stop()

        assert given_back == [1]


async def test_while_the_broker_does_not_answer_nothing_is_acknowledged(logs: Logs) -> None:
    release = asyncio.Event()
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        await release.wait()
        raise Reject("sold out")

    async with Stage(orders, publish_timeout_s=0.02) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await eventually(lambda: orders.running == 1)
        async with stage.broker.stalled():
            release.set()
            await eventually(lambda: logs.events.count("delivery.unsettled") >= 2)
            assert stage.depth("orders", "commands") == 1
        await stage.settled()

        assert stage.depth("orders", "commands") == 0
        assert {letter.fault.reason for letter in stage.dead("orders")} == {"sold out"}


async def test_the_waits_between_tries_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    monkeypatch.setattr(settle, "_BACKOFF_MAX_S", 0.02)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    orders = failing()

    async with Stage(orders) as stage:
        stage.broker.delete(stage.names.rung("orders", 1_000))
        await stage.send(PlaceOrder(), sender="users")
        for tries in range(1, 5):
            await eventually(lambda tries=tries: logs.events.count("delivery.unsettled") >= tries)  # type: ignore[misc]
            times.append(loop.time())

    assert max(later - earlier for earlier, later in pairwise(times)) < 1.0


async def test_what_cannot_be_settled_while_the_service_stops_is_given_back(logs: Logs) -> None:
    orders = failing()

    async with Stage(orders) as stage:
        stage.broker.delete(stage.names.rung("orders", 1_000))
        await stage.send(PlaceOrder(), sender="users")
        await eventually(lambda: "delivery.unsettled" in logs.events)
        await orders.stop()

        load = stage.broker.loads()[stage.names.queue("orders", "commands")]
        assert (load.ready, load.unsettled) == (1, 0)


async def test_forgeries_are_sampled_and_logged_ten_times_a_second_at_most(logs: Logs) -> None:
    async with Stage(rejecting()) as stage:
        for number in range(50):
            stage.inject("orders", "commands", b"junk %d" % number)
        await stage.settled()
        assert stage.depth("orders", "quarantine") == len(logs.of("delivery.quarantined")) == SAMPLES_PER_S

        await stage.advance(1.0)
        stage.inject("orders", "commands", b"x" * 100_000)
        await stage.settled()

        last = logs.of("delivery.quarantined")[-1]
        assert (last["suppressed"], last["code"], last["size_bytes"]) == (40, "malformed", 100_000)
        assert len(stage.bodies("orders", "quarantine")[-1]) == SAMPLE_MAX_BYTES
        assert (
            stage.depth("orders", "commands") == stage.depth("orders", "dead") == stage.depth("orders", "refused") == 0
        )


async def test_nothing_that_a_forger_wrote_is_logged(logs: Logs) -> None:
    async with Stage(rejecting()) as stage:
        body = bytearray(stage.sealed(PlaceOrder(), "users"))
        body[-1] ^= 1
        stage.inject("orders", "commands", bytes(body))
        await stage.settled()

        [entry] = logs.of("delivery.quarantined")
        assert set(entry) == {"event", "log_level", "queue", "code", "size_bytes", "suppressed"}
        assert "place_order" not in str(entry)


async def test_authentic_but_forbidden_messages_are_kept_whole_in_the_refused_queue(logs: Logs) -> None:
    async with Stage(rejecting()) as stage:
        body = stage.sealed(PlaceOrder(), "users")

        def forbid(payload: dict[str, dict[str, list[dict[str, str]]]]) -> None:
            payload["policy"]["send"] = [rule for rule in payload["policy"]["send"] if rule["from"] != "users"]

        stage.change_bundle(forbid)
        stage.inject("orders", "commands", body)
        await stage.settled()

        assert stage.bodies("orders", "refused") == [body]
        assert stage.depth("orders", "quarantine") == stage.depth("orders", "dead") == 0
        [entry] = logs.of("delivery.refused")
        assert (entry["code"], entry["sender"], entry["message_name"]) == ("policy", "users", "orders.place_order")


async def test_a_reply_to_somebody_who_is_gone_is_no_error(logs: Logs) -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders) as stage:
        stage.inject("orders", "requests", stage.sealed(CountOrders(), "users"))
        await stage.settled()

        assert logs.events.count("reply.unheard") == 1
        assert stage.depth("orders", "requests") == 0


async def test_an_answer_that_nobody_can_read_is_given_up() -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    async with Stage(orders) as stage:
        body = stage.sealed(CountOrders(), "users")

        def drop_keys(payload: dict[str, dict[str, dict[str, object]]]) -> None:
            payload["services"]["users"]["enc"] = []

        stage.change_bundle(drop_keys, only=["orders"])
        stage.inject("orders", "requests", body)
        await stage.settled()

        assert stage.depth("orders", "requests") == 0


async def test_counts_tell_how_deliveries_ended() -> None:
    orders = rejecting()

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.send(CancelOrder(), sender="users")
        stage.inject("orders", "commands", b"junk")
        await stage.settled()

        assert orders.health.details["counts"] == {"buried": 1, "handled": 1, "skipped.malformed": 1}


async def test_a_flood_of_forgeries_does_not_stop_the_queue() -> None:
    orders = Service("orders")

    @orders.on_command(CancelOrder)
    async def cancel_order(command: CancelOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        for _ in range(500):
            stage.inject("orders", "commands", b"junk")
        await stage.send(CancelOrder(), sender="users")
        await stage.settled()

        assert len(stage.calls(cancel_order)) == 1
        await holds(lambda: orders.health.is_ready, 0.01)


async def test_a_message_at_the_cap_that_fails_is_buried_and_replayable() -> None:
    orders = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))
    sizes: list[int] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        sizes.append(len(command.note))
        if context.replayed_by is None:
            raise ValueError("x" * 5_000)

    async with Stage(orders) as stage:
        note = "x" * (PAYLOAD_MAX_BYTES - len(encode_model(PlaceOrder(), CODEC_MSGPACK)) - 4)
        await stage.send(PlaceOrder(note=note), sender="users")
        await stage.settled()
        assert [letter.is_replayable for letter in stage.dead("orders")] == [True]

        await stage.replay("orders")
        await stage.settled()
        assert sizes == [len(note)] * 2
        assert stage.dead("orders") == []
