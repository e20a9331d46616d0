"""An operator's replay, end to end: what may run again, how often, and what is refused."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from messaging import Context, Fault, Reject, Selection, Service
from messaging.core.envelope import CODEC_RAW, Envelope, Kind
from messaging.core.topology import Binding, Queue, Topology
from messaging.errors import MalformedError, PolicyError
from messaging.runtime.replaying import REASON_MAX_CHARS, Replay, read_replay
from messaging.security.outer import leaf_of
from tests.support.logs import Logs
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder
from tests.support.stage import OPERATOR, Stage

SPY = "replays"
FIXED_ID = UUID(int=1)


def spy_on_replays(stage: Stage, service: str, part: str) -> None:
    stage.broker.declare(
        Topology(
            queues=(Queue(name=SPY),),
            bindings=(
                Binding(
                    exchange=stage.names.return_exchange(service),
                    queue=SPY,
                    routing_key=stage.names.queue(service, part),
                ),
            ),
        )
    )


def wrapper(stage: Stage, original: bytes, *, part: str = "commands", sender: str = OPERATOR, **changes: Any) -> bytes:
    """Return what an operator, honest or not, can make of a sealed command."""
    now_ms = stage.clock.now_ms()
    headers: Mapping[str, Any] = Replay(original=original, reason="by hand").headers()
    values: dict[str, Any] = {
        "id": stage.clock.ambient.new_id(),
        "kind": Kind.REPLAY,
        "name": "orders.place_order",
        "version": 1,
        "sender": sender,
        "audience": "orders",
        "issued_at_ms": now_ms,
        "expires_at_ms": now_ms + 3_600_000,
        "payload": original,
        "codec": CODEC_RAW,
        "headers": headers,
    }
    values |= changes
    if "bind" not in changes:
        values["bind"] = leaf_of(original)
    return stage.sealer(sender).seal(Envelope(**values), routing_key=stage.names.queue(values["audience"], part))


def an_orders(runs: list[Context], *, failures: int) -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context)
        if len(runs) <= failures:
            raise Reject("sold out")

    return orders


async def test_a_replay_runs_the_original_and_tells_who_and_why(logs: Logs) -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        message_id = await stage.send(PlaceOrder(number=7), sender="users")
        await stage.settled()
        report = await stage.replay("orders", reason="back in stock")
        await stage.settled()

        assert (report.replayed, report.failed, report.kept, report.stopped_because) == (1, 0, 0, None)
        first, second = runs
        assert (first.replayed_by, first.replay_reason) == (None, None)
        assert (second.replayed_by, second.replay_reason) == (OPERATOR, "back in stock")
        assert (second.message_id, second.sender, second.attempt) == (message_id, "users", 1)
        assert stage.dead("orders") == []
        [entry] = logs.of("delivery.replaying")
        assert (entry["replayed_by"], entry["reason"]) == (OPERATOR, "back in stock")


async def test_a_replay_reaches_only_the_service_that_failed() -> None:
    heard = []
    billing, audit = Service("billing"), Service("audit")

    @billing.on_event(OrderPlaced)
    async def bill(event: OrderPlaced, context: Context) -> None:
        heard.append("billing")
        if heard.count("billing") == 1:
            raise Reject("no address")

    @audit.on_event(OrderPlaced)
    async def note(event: OrderPlaced, context: Context) -> None:
        heard.append("audit")

    async with Stage(billing, audit) as stage:
        await stage.publish(OrderPlaced(), sender="orders")
        await stage.settled()
        await stage.replay("billing")
        await stage.settled()

        assert sorted(heard) == ["audit", "billing", "billing"]
        assert stage.dead("billing") == []


async def test_a_message_that_fails_again_comes_back_with_its_history() -> None:
    runs: list[Context] = []
    faults: list[Fault] = []
    users = Service("users")

    @users.on_fault(PlaceOrder)
    async def order_failed(fault: Fault, context: Context) -> None:
        faults.append(fault)

    async with Stage(an_orders(runs, failures=3), users) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        for _ in range(2):
            await stage.replay("orders")
            await stage.settled()

        [letter] = stage.dead("orders")
        assert (letter.fault.replays, letter.fault.attempts, letter.is_replayable) == (2, 3, True)
        assert [fault.replays for fault in faults] == [0, 1, 2]


async def test_a_replay_that_fails_for_a_while_walks_the_ladder_as_a_replay() -> None:
    runs: list[Context] = []
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        runs.append(context)
        if len(runs) == 1:
            raise Reject("first")
        if len(runs) < 6:
            raise ConnectionError

    async with Stage(orders) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        await stage.replay("orders")
        await stage.advance(60.0)

        assert [context.attempt for context in runs] == [1, 1, 2, 3, 4, 5]
        assert {context.replayed_by for context in runs[1:]} == {OPERATOR}
        assert stage.dead("orders") == []


async def test_a_replay_outlives_the_expiry_of_its_original() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        stage.inject("orders", "commands", stage.sealed(PlaceOrder(), "users", life_ms=1_000))
        await stage.advance(600.0)
        await stage.replay("orders")
        await stage.settled()

    assert len(runs) == 2


async def test_the_raw_bytes_of_what_was_buried_never_run_again(logs: Logs) -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        for _ in range(2):
            stage.inject("orders", "commands", body)
            await stage.settled()

        assert len(runs) == 1
        assert stage.depth("orders", "dead") == 1
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["duplicate"]


async def test_a_replay_of_what_is_done_is_refused() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=0)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()
        again = wrapper(stage, body)
        stage.inject("orders", "commands", again)
        await stage.settled()

        assert len(runs) == 1
        assert stage.bodies("orders", "refused") == [again]


async def test_force_runs_even_what_is_done() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=0)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()
        headers = Replay(original=body, reason="again", force=True).headers()
        stage.inject("orders", "commands", wrapper(stage, body, headers=headers))
        await stage.settled()

    assert len(runs) == 2


async def test_the_same_replay_twice_runs_once(logs: Logs) -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=2)) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        spy_on_replays(stage, "orders", "commands")
        await stage.replay("orders")
        await stage.settled()
        [bytes_of_replay] = stage.broker.bodies(SPY)
        stage.inject("orders", "commands", bytes_of_replay)
        await stage.settled()

        assert len(runs) == 2
        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["duplicate"]
        assert stage.depth("orders", "dead") == 1


async def test_a_service_key_cannot_replay() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()
        with pytest.raises(PolicyError, match="only operators may"):
            wrapper(stage, body, sender="users")


@pytest.mark.parametrize("part", ["edited", "other"])
async def test_a_wrapper_whose_inside_is_not_what_it_is_bound_to_is_refused(part: str) -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()
        # The tenth byte from the end is one of the signature.
        edited = body[:-10] + bytes([body[-10] ^ 1]) + body[-9:]
        inside = edited if part == "edited" else stage.sealed(PlaceOrder(), "users")
        wrong = wrapper(stage, inside, bind=leaf_of(body))
        stage.inject("orders", "commands", wrong)
        await stage.settled()

        assert len(runs) == 1
        assert stage.bodies("orders", "refused") == [wrong]
        assert stage.depth("orders", "quarantine") == 0


async def test_junk_inside_an_authentic_wrapper_is_refused_and_no_forgery() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        junk = wrapper(stage, b"junk", bind=bytes(32))
        stage.inject("orders", "commands", junk)
        await stage.settled()

        assert stage.bodies("orders", "refused") == [junk]
        assert stage.depth("orders", "quarantine") == 0


async def test_a_wrapper_with_a_payload_that_is_not_raw_is_refused() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        wrong = wrapper(stage, body, codec=0)
        stage.inject("orders", "commands", wrong)
        await stage.settled()

        assert runs == []
        assert stage.bodies("orders", "refused") == [wrong]


async def test_a_request_is_never_replayed() -> None:
    orders = Service("orders")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 1

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    async with Stage(orders) as stage:
        wrong = wrapper(stage, stage.sealed(CountOrders(), "users"), name="orders.count_orders")
        stage.inject("orders", "commands", wrong)
        await stage.settled()

        assert stage.calls(count_orders) == []
        assert stage.bodies("orders", "refused") == [wrong]


async def test_an_unknown_original_runs_while_it_is_young_and_later_only_by_force() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=0)) as stage:
        young, old = stage.sealed(PlaceOrder(number=1), "users"), stage.sealed(PlaceOrder(number=2), "users")
        stage.inject("orders", "commands", wrapper(stage, young))
        await stage.settled()
        assert len(runs) == 1

        await stage.advance(7 * 24 * 3600 + 1.0)
        late = wrapper(stage, old)
        stage.inject("orders", "commands", late)
        await stage.settled()
        assert stage.bodies("orders", "refused") == [late]

        force = Replay(original=old, reason="known to be lost", force=True).headers()
        stage.inject("orders", "commands", wrapper(stage, old, headers=force))
        await stage.settled()
        assert len(runs) == 2


async def test_a_replay_that_waited_too_long_keeps_its_original_replayable() -> None:
    runs: list[Context] = []

    async with Stage(an_orders(runs, failures=1)) as stage:
        await stage.send(PlaceOrder(number=7), sender="users")
        await stage.settled()
        spy_on_replays(stage, "orders", "commands")
        stage.broker.exchange(stage.names.return_exchange("orders")).forget(stage.names.queue("orders", "commands"))
        await stage.replay("orders")
        [bytes_of_replay] = stage.broker.bodies(SPY)
        await stage.advance(25 * 3600.0)
        stage.broker.exchange(stage.names.return_exchange("orders")).bind(
            stage.names.queue("orders", "commands"), stage.names.queue("orders", "commands")
        )
        stage.inject("orders", "commands", bytes_of_replay)
        await stage.settled()

        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.kind, letter.is_replayable) == ("expired", Kind.COMMAND, True)
        assert (letter.payload, letter.fault.replays) == ({"number": 7, "note": ""}, 1)
        await stage.replay("orders", Selection(error="expired"))
        await stage.settled()
        assert len(runs) == 2
        assert stage.dead("orders") == []


def test_headers_come_back_as_they_went() -> None:
    replay = Replay(original=b"x", reason="why", force=True, replays=3, attempts=9)

    assert read_replay(an_envelope(b"x", replay.headers())) == replay


def an_envelope(payload: bytes, headers: Mapping[str, Any], *, codec: int = CODEC_RAW) -> Envelope:
    return Envelope(
        id=FIXED_ID,
        kind=Kind.REPLAY,
        name="orders.place_order",
        version=1,
        sender=OPERATOR,
        audience="orders",
        issued_at_ms=1,
        expires_at_ms=2,
        payload=payload,
        codec=codec,
        headers=headers,
    )


@pytest.mark.parametrize("count", [-1, 10**9, True, "3", None, 1.5])
def test_counts_that_make_no_sense_are_the_defaults(count: object) -> None:
    replay = read_replay(an_envelope(b"x", {"replays": count, "attempts": count, "force": "yes"}))

    assert (replay.replays, replay.attempts, replay.force, replay.reason) == (1, 0, False, "")


def test_a_long_reason_is_cut() -> None:
    assert len(read_replay(an_envelope(b"x", {"reason": "x" * 10_000})).reason) == REASON_MAX_CHARS


def test_a_replay_carries_raw_bytes() -> None:
    with pytest.raises(MalformedError, match="raw bytes"):
        read_replay(an_envelope(b"x", {}, codec=0))
