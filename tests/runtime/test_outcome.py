"""Where a delivery goes that could not be believed, read or handled."""

from dataclasses import dataclass
from typing import cast

import pytest

from messaging import Context, Fault, Reject, RemoteError, Service
from messaging.core.envelope import Envelope, Kind
from messaging.core.retry import Ack, Retry, RetryPolicy
from messaging.runtime.handling import Handling, Part
from messaging.runtime.outcome import LAG_UNVERIFIED_MAX, Identity, Outcomes, Redact
from messaging.security import suite
from messaging.security.seal import Sealer, Unsigned
from messaging.transports.base import Delivery
from tests.support.logs import Logs
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder
from tests.support.stage import Stage


def an_orders() -> Service:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        pass

    return orders


def verdicts(stage: Stage, service: str = "orders") -> dict[str, int]:
    return {part: stage.depth(service, part) for part in ("dead", "refused", "quarantine", "retry.1000")}


def without(stage: Stage, name: str) -> None:
    """Let orders have a bundle in which a sender has no keys."""

    def edit(payload: dict[str, dict[str, dict[str, object]]]) -> None:
        payload["services"][name]["sign"] = []

    stage.change_bundle(edit, only=["orders"])


async def test_a_message_for_somebody_else_is_refused() -> None:
    async with Stage(an_orders()) as stage:
        body = stage.sealed(CountOrders(), "users")
        stage.inject("orders", "commands", body)
        await stage.settled()

        assert stage.bodies("orders", "refused") == [body]


async def test_a_sender_that_nobody_knows_is_a_forger() -> None:
    async with Stage(an_orders()) as stage:
        body = stage.sealed(PlaceOrder(), "users")
        without(stage, "users")
        stage.inject("orders", "commands", body)
        await stage.settled()

        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 1, "retry.1000": 0}


async def test_a_new_sender_waits_for_the_newer_bundle_without_losing_an_attempt(logs: Logs) -> None:
    orders = an_orders()

    async with Stage(orders) as stage:
        body = a_newcomers(stage)
        stage.inject("orders", "commands", body)
        await stage.advance(10.0)
        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 0, "retry.1000": 1}
        assert len(logs.of("delivery.deferred")) == 11

        stage.trust.join("orders")
        await stage.advance(1.0)

        [command] = stage.calls(next(orders.handlers).call)
        assert command == PlaceOrder()
        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 0, "retry.1000": 0}


async def test_an_unproven_claim_to_be_ahead_waits_a_minute_and_no_longer() -> None:
    async with Stage(an_orders()) as stage:
        stage.inject("orders", "commands", a_newcomers(stage))
        await stage.advance(65.0)

        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 1, "retry.1000": 0}


async def test_so_many_unproven_claims_may_wait_and_no_more() -> None:
    async with Stage(an_orders()) as stage:
        for _ in range(LAG_UNVERIFIED_MAX + 5):
            stage.inject("orders", "commands", a_newcomers(stage))
        await stage.settled()

        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 5, "retry.1000": LAG_UNVERIFIED_MAX}


def a_newcomers(stage: Stage) -> bytes:
    """Return a command of a service that orders' bundle does not know yet."""
    orders_store = stage.trust._stores.pop("orders")
    stage.trust._add("newcomer")
    stage.trust._published("newcomer")
    keyring, store = stage.trust._keyrings["newcomer"], stage.trust._stores["newcomer"]
    sealer = Sealer(keyring, store, stage.names, ambient=stage.clock.ambient)
    stage.trust._stores["orders"] = orders_store
    return sealer.seal(stage.envelope(PlaceOrder(), "newcomer"), routing_key="orders.place_order.v1")


@pytest.mark.parametrize("is_coming", [True, False])
async def test_a_grant_that_is_not_here_yet_is_waited_for_a_minute(is_coming: bool) -> None:
    orders = an_orders()

    async with Stage(orders) as stage:
        stage.trust.join("users")
        stage.change_bundle(lambda payload: payload["policy"].update(send=[]), only=["orders"])
        stage.change_bundle(lambda _: None, only=["users"])
        sealer = Sealer(
            stage.trust._keyrings["users"], stage.trust._stores["users"], stage.names, ambient=stage.clock.ambient
        )
        body = sealer.seal(stage.envelope(PlaceOrder(), "users"), routing_key="orders.place_order.v1")
        stage.inject("orders", "commands", body)
        await stage.settled()
        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 0, "retry.1000": 1}
        assert orders._parts is not None
        assert orders._parts.lagging.is_set()

        if is_coming:
            stage.change_bundle(lambda _: None)
        await stage.advance(1.0 if is_coming else 61.0)
        assert len(stage.calls(next(orders.handlers).call)) == (1 if is_coming else 0)
        assert stage.bodies("orders", "refused") == ([] if is_coming else [body])


async def test_a_message_from_the_future_waits_until_its_time_and_is_refused_after_ten_minutes() -> None:
    orders = an_orders()

    async with Stage(orders) as stage:
        soon, far = (from_the_future(stage, by_s=by_s) for by_s in (90.0, 3_600.0))
        nine_minutes_ago = stage.clock.now_ms() - 9 * 60_000
        stage.inject("orders", "commands", soon)
        stage.inject("orders", "commands", far, x_first_failed=nine_minutes_ago)
        await stage.advance(35.0)
        assert len(stage.calls(next(orders.handlers).call)) == 1
        assert stage.depth("orders", "refused") == 0

        await stage.advance(30.0)
        assert stage.bodies("orders", "refused") == [far]


def from_the_future(stage: Stage, *, by_s: float) -> bytes:
    now = stage.envelope(PlaceOrder(), "users")
    shift_ms = round(by_s * 1000)
    values = {name: getattr(now, name) for name in now.__dataclass_fields__}
    times = {"issued_at_ms": now.issued_at_ms + shift_ms, "expires_at_ms": now.expires_at_ms + shift_ms}
    return stage.sealer("users").seal(Envelope(**(values | times)), routing_key="orders.place_order.v1")


async def test_a_first_failure_in_the_future_does_not_stretch_a_claims_patience() -> None:
    async with Stage(an_orders()) as stage:
        stage.inject("orders", "commands", a_newcomers(stage), x_first_failed=stage.clock.now_ms() + 10**12)
        await stage.advance(65.0)

        assert verdicts(stage) == {"dead": 0, "refused": 0, "quarantine": 1, "retry.1000": 0}


async def test_an_event_that_is_not_sealed_to_us_is_dropped_and_nothing_is_lost(logs: Logs) -> None:
    billing, audit = Service("billing"), Service("audit")

    @billing.on_event(OrderPlaced)
    async def bill(event: OrderPlaced, context: Context) -> None:
        pass

    @audit.on_event(OrderPlaced)
    async def note(event: OrderPlaced, context: Context) -> None:
        pass

    async with Stage(billing) as stage:
        before = stage.sealed(OrderPlaced(), "orders")
        stage.trust.join("audit", audit.subscriptions)
        await audit.start(seams=stage._seams)
        stage.inject("audit", "events", before)
        await stage.settled()
        await audit.stop()

        assert [entry["code"] for entry in logs.of("delivery.skipped")] == ["audience"]
        assert verdicts(stage, "audit") == {"dead": 0, "refused": 0, "quarantine": 0, "retry.1000": 0}


async def test_content_that_cannot_be_opened_is_buried() -> None:
    async with Stage(an_orders()) as stage:
        sealer = stage.sealer("users")
        unsigned = sealer.prepare(stage.envelope(PlaceOrder(), "users"), routing_key="orders.place_order.v1")
        content = unsigned.content[:-1] + bytes([unsigned.content[-1] ^ 1])
        leaf = _leaf(unsigned.header, unsigned.block, content)
        broken = Unsigned(unsigned.header, unsigned.block, content, leaf, unsigned.signer)
        stage.inject("orders", "commands", sealer.sign([broken])[0])
        await stage.settled()

        [letter] = stage.dead("orders")
        assert (letter.fault.error, letter.fault.attempts, letter.payload) == ("DecryptionError", 1, None)


def _leaf(header: bytes, block: bytes, content: bytes) -> bytes:
    return suite.leaf_of_parts(header, suite.sha256(block), content)


@dataclass
class _Back:
    """A delivery that came back."""

    redelivered: bool = True
    attempt: int = 1
    first_failed_ms: int | None = None
    body: bytes = b""


def _handling(stage: Stage, back: _Back, *, part: Part = Part.REQUESTS, life_ms: int = 60_000) -> Handling:
    body = stage.sealed(CountOrders(), "users", life_ms=life_ms)
    verified = stage.opener("orders").verify(body, kinds=frozenset({Kind.REQUEST}))
    handling = Handling(cast("Delivery", back), part)
    handling.verified = verified
    return handling


def _outcomes(stage: Stage) -> Outcomes:
    identity = Identity(service="orders", instance="0" * 16, host="h", version="1")
    return Outcomes(identity=identity, ambient=stage.clock.ambient, retry=RetryPolicy())


async def test_a_request_whose_worker_died_runs_once_more_and_then_its_caller_is_told() -> None:
    async with Stage(an_orders()) as stage:
        outcomes = _outcomes(stage)
        first, second = _handling(stage, _Back()), _handling(stage, _Back(attempt=2))

        assert outcomes.came_back(first) == Retry(delay_s=1.0)
        assert outcomes.came_back(second) == Ack()
        assert second.fault is not None
        assert "twice" in second.fault.reason
        assert second.reply is not None


@pytest.mark.parametrize(
    ("back", "part", "life_ms"),
    [
        (_Back(redelivered=False, attempt=2), Part.REQUESTS, 60_000),
        (_Back(), Part.COMMANDS, 60_000),
        (_Back(), Part.REQUESTS, 1_500),
    ],
    ids=["fresh from the rung", "counted by the broker", "no time for the rung"],
)
async def test_what_else_comes_runs(back: _Back, part: Part, life_ms: int) -> None:
    async with Stage(an_orders()) as stage:
        assert _outcomes(stage).came_back(_handling(stage, back, part=part, life_ms=life_ms)) is None


class Secret(Reject):
    """Words that must not leave the service."""


def a_service_that_redacts(redact: Redact) -> Service:
    orders = Service("orders", redact=redact, retry=RetryPolicy(immediate=0, delays_s=()))

    @orders.on_command(PlaceOrder)
    async def place_order(_command: PlaceOrder, _context: Context) -> None:
        raise Secret("the card is 4711") from KeyError("4711")

    @orders.on_request(CountOrders)
    async def count_orders(_request: CountOrders, _context: Context) -> int:
        raise ValueError("the card is 4711")

    return orders


def without_words(fault: Fault) -> Fault:
    return fault.marked(reason="", chain=(), permanent=False)


def returns_nothing(_fault: Fault) -> Fault:
    return cast("Fault", None)


def raises(_fault: Fault) -> Fault:
    raise LookupError("4711")


@pytest.mark.parametrize("redact", [without_words, returns_nothing, raises])
async def test_what_a_service_takes_out_of_its_faults_is_told_nobody(redact: Redact, logs: Logs) -> None:
    async with Stage(a_service_that_redacts(redact)) as stage:
        await stage.send(PlaceOrder(), sender="users")
        users = await stage._publisher("users")
        with pytest.raises(RemoteError) as answer:
            await users.request(CountOrders(), timeout_s=10.0)
        await stage.settled()
        (letter,) = stage.dead("orders")

    assert letter.fault.error.endswith("Secret")
    assert (letter.fault.service, letter.fault.chain) == ("orders", ())
    for told in (letter.fault.to_map(), answer.value.fault.to_map(), logs.entries):
        assert "4711" not in str(told)


async def test_what_is_told_of_a_fault_decides_nothing() -> None:
    async with Stage(a_service_that_redacts(without_words)) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        (letter,) = stage.dead("orders")

    assert letter.fault.attempts == 1


async def test_a_fault_that_cannot_be_redacted_is_told_by_its_error_alone(logs: Logs) -> None:
    async with Stage(a_service_that_redacts(raises)) as stage:
        await stage.send(PlaceOrder(), sender="users")
        await stage.settled()
        (letter,) = stage.dead("orders")

    [entry] = logs.of("fault.withheld")
    assert (entry["service"], entry["reason"]) == ("orders", "LookupError")
    assert letter.fault.reason.startswith("withheld")
    assert letter.fault.trace == ""
