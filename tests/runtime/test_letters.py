"""Reading one dead letter: what is proven, what is claimed, and what may not be believed."""

from messaging import Context, Reject, Service
from messaging.core.envelope import CODEC_JSON, Envelope, Kind
from messaging.core.topology import dead_routing_key
from messaging.runtime.letters import LetterReader
from messaging.runtime.replaying import Replay
from messaging.security.content import pack_fault
from messaging.security.outer import leaf_of
from messaging.security.suite import fault_id
from messaging.testing.harness import _Still
from messaging.transports.base import Death
from tests.runtime.test_replaying import wrapper
from tests.support.shop import CountOrders, PlaceOrder
from tests.support.stage import OPERATOR, Stage


def a_letter(stage: Stage, original: bytes, *, bind: bytes | None = None, payload: bytes | None = None) -> bytes:
    """Return what orders buries of a command of users."""
    now_ms = stage.clock.now_ms()
    leaf = leaf_of(original) if bind is None else bind
    fault = Envelope(
        id=fault_id(leaf, 0),
        kind=Kind.FAULT,
        name="orders.place_order",
        version=1,
        sender="orders",
        audience="users",
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + 1_000,
        payload=pack_fault(original, {"error": "E", "reason": "r", "attempts": 2}) if payload is None else payload,
        bind=leaf,
    )
    return stage.sealer("orders").seal(fault, routing_key=dead_routing_key("orders", "users"))


def reader(stage: Stage) -> LetterReader:
    return LetterReader(stage.opener(OPERATOR))


async def test_a_letter_tells_the_original_and_its_fault() -> None:
    async with Stage() as stage:
        original = stage.sealed(PlaceOrder(number=4), "users")

        letter = reader(stage).read("orders", _Still(body=a_letter(stage, original)))

        assert letter.is_verified
        assert letter.is_replayable
        assert (letter.original, letter.leaf) == (original, leaf_of(original))
        assert (letter.payload, letter.key_state) == ({"number": 4, "note": ""}, "active")
        assert (letter.fault.error, letter.fault.attempts) == ("E", 2)


async def test_an_expired_letter_is_read_all_the_same() -> None:
    async with Stage() as stage:
        body = a_letter(stage, stage.sealed(PlaceOrder(), "users"))
        await stage.advance(3_600.0)

        assert reader(stage).read("orders", _Still(body=body)).is_verified


async def test_junk_is_unverified_under_a_digest_of_its_bytes() -> None:
    async with Stage() as stage:
        first, second = (reader(stage).read("orders", _Still(body=body)) for body in (b"one", b"two"))

        assert (first.is_verified, first.message_id, first.payload) == (False, None, None)
        assert first.why_not is not None
        assert first.why_not.startswith("unverified: ")
        assert first.id != second.id


async def test_a_letter_of_another_service_is_unverified() -> None:
    async with Stage() as stage:
        body = a_letter(stage, stage.sealed(PlaceOrder(), "users"))

        assert not reader(stage).read("billing", _Still(body=body)).is_verified


async def test_a_letter_that_embeds_another_message_than_it_is_bound_to_is_unverified() -> None:
    async with Stage() as stage:
        original, other = stage.sealed(PlaceOrder(), "users"), stage.sealed(PlaceOrder(), "users")

        letter = reader(stage).read("orders", _Still(body=a_letter(stage, original, bind=leaf_of(other))))

        assert not letter.is_verified


async def test_a_letter_whose_content_is_no_fault_is_unverified() -> None:
    async with Stage() as stage:
        original = stage.sealed(PlaceOrder(), "users")

        letter = reader(stage).read("orders", _Still(body=a_letter(stage, original, payload=b"\x00")))

        assert not letter.is_verified


async def test_what_the_broker_buried_is_verified_and_its_reason_is_a_claim() -> None:
    async with Stage() as stage:
        body = stage.sealed(PlaceOrder(number=4), "users")
        death = Death(queue="messaging.orders.commands", reason="delivery_limit", count=1)

        letter = reader(stage).read("orders", _Still(body=body, attempt=3, first_failed_ms=5, deaths=(death,)))

        assert letter.is_verified
        assert letter.is_replayable
        assert (letter.fault.error, letter.fault.attempts) == ("broker.delivery_limit", 3)
        assert "messaging.orders.commands" in letter.fault.reason
        assert letter.payload == {"number": 4, "note": ""}
        assert letter.died_at_ms == letter.issued_at_ms


async def test_what_the_fuse_buried_says_so() -> None:
    async with Stage() as stage:
        letter = reader(stage).read("orders", _Still(body=stage.sealed(PlaceOrder(), "users")))

        assert (letter.fault.error, letter.kind) == ("crash_loop", Kind.COMMAND)


async def test_what_had_no_queue_to_come_back_to_says_so() -> None:
    async with Stage() as stage:
        queue = stage.names.queue("orders", "commands")
        death = Death(queue=stage.names.rung("orders", 1000), reason="expired", count=1)
        lost = _Still(
            body=stage.sealed(PlaceOrder(), "users"),
            exchange=stage.names.return_exchange("orders"),
            routing_key=queue,
            deaths=(death,),
        )

        letter = reader(stage).read("orders", lost)

        assert letter.fault.error == "broker.no_queue"
        assert queue in letter.fault.reason
        assert letter.is_replayable


async def test_a_buried_replay_shows_its_original_with_its_history() -> None:
    async with Stage() as stage:
        original = stage.sealed(PlaceOrder(number=4), "users")
        history = Replay(original=original, reason="again", replays=2, attempts=7).headers()
        body = wrapper(stage, original, headers=history)

        letter = reader(stage).read("orders", _Still(body=body, attempt=1))

        assert (letter.kind, letter.sender, letter.original) == (Kind.COMMAND, "users", original)
        assert (letter.fault.replays, letter.fault.attempts, letter.is_replayable) == (2, 8, True)


async def test_a_buried_replay_of_something_else_is_unverified() -> None:
    async with Stage() as stage:
        original, other = stage.sealed(PlaceOrder(), "users"), stage.sealed(PlaceOrder(), "users")

        letter = reader(stage).read("orders", _Still(body=wrapper(stage, original, bind=leaf_of(other))))

        assert not letter.is_verified


async def test_a_message_that_this_operator_cannot_read_is_listed_without_its_payload() -> None:
    async with Stage() as stage:
        original = stage.sealed(CountOrders(), "users")

        letter = reader(stage).read("orders", _Still(body=a_letter(stage, original)))

        assert letter.is_verified
        assert letter.payload is None
        assert letter.unreadable_because is not None
        assert (letter.is_replayable, letter.why_not) == (False, "a request is never replayed")


async def test_a_payload_that_cannot_be_decoded_is_listed_without_it() -> None:
    async with Stage() as stage:
        stage.trust.join("orders")
        envelope = stage.envelope(PlaceOrder(), "users")
        odd = Envelope(
            **{name: getattr(envelope, name) for name in envelope.__dataclass_fields__}
            | {"payload": b"\xff", "codec": CODEC_JSON}
        )
        original = stage.sealer("users").seal(odd, routing_key="orders.place_order.v1")

        letter = reader(stage).read("orders", _Still(body=a_letter(stage, original)))

        assert (letter.payload, letter.is_replayable) == (None, True)
        assert letter.unreadable_because is not None


async def test_what_a_compromised_key_signed_is_never_replayable() -> None:
    orders = Service("orders")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("no")

    for name, why in (("users", "that signed it is"), ("orders", "that signed the dead letter is")):
        async with Stage(orders) as stage:
            await stage.send(PlaceOrder(), sender="users")
            await stage.settled()
            kid = stage.trust._keyrings[name].signing[0].kid.hex()
            [body] = stage.bodies("orders", "dead")
            reading = reader(stage)
            at = stage.clock.now_ms()
            stage.change_bundle(
                lambda payload, kid=kid, at=at: payload["revoked"].append(  # type: ignore[misc]
                    {"kid": kid, "at": at, "reason": "compromise"}
                )
            )

            letter = reading.read("orders", _Still(body=body))

            assert not letter.is_replayable
            assert letter.why_not is not None
            assert why in letter.why_not
