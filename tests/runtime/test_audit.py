"""Records of a pass: signed, confirmed before the act is finished, written together."""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from messaging import Reject, Selection, Service, open_operator
from messaging.core.dead_letter import DeadLetter
from messaging.core.fault import Fault
from messaging.core.retry import RetryPolicy
from messaging.errors import PublishNotConfirmedError
from messaging.runtime.audit import LETTERS_MAX, AuditStream, PassRecord
from messaging.runtime.context import Context
from messaging.security.audit import Proof, read_record
from tests.support.shop import PlaceOrder
from tests.support.stage import OPERATOR, Stage


class Pen:
    """Takes records, or refuses them."""

    def __init__(self) -> None:
        self.written: list[Mapping[str, object]] = []
        self.is_broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def attest(self, fields: Mapping[str, object]) -> None:
        await self.gate.wait()
        if self.is_broken:
            raise PublishNotConfirmedError("the stream is full")
        self.written.append(fields)


def record_with(pen: Pen) -> PassRecord:
    return PassRecord(cast("AuditStream", pen), {"operator": "ops:alice"}, now_ms=lambda: 7)


def letter(number: int) -> DeadLetter:
    return DeadLetter(id=f"{number:032x}", service="orders", is_verified=True, fault=Fault(error="E", reason="r"))


def ids_of(fields: Mapping[str, object]) -> list[str]:
    return [entry["id"] for entry in cast("list[dict[str, str]]", fields["letters"])]


async def test_what_is_noted_in_one_turn_shares_a_record() -> None:
    pen = Pen()
    record = record_with(pen)

    await asyncio.gather(*(record.note("replayed", letter(number)) for number in range(5)))

    [written] = pen.written
    assert (written["act"], written["operator"], written["at_ms"]) == ("replayed", "ops:alice", 7)
    assert ids_of(written) == [letter(number).id for number in range(5)]


async def test_no_record_grows_beyond_its_bound_and_none_is_left_out() -> None:
    pen = Pen()
    record = record_with(pen)

    await asyncio.gather(*(record.note("discarded", letter(number)) for number in range(LETTERS_MAX + 3)))

    assert [len(ids_of(written)) for written in pen.written] == [LETTERS_MAX, 3]


async def test_what_cannot_be_recorded_is_an_error_for_each() -> None:
    pen = Pen()
    pen.is_broken = True
    record = record_with(pen)

    found = await asyncio.gather(
        *(record.note("replayed", letter(number)) for number in range(3)), return_exceptions=True
    )

    assert [type(error) for error in found] == [PublishNotConfirmedError] * 3
    pen.is_broken = False
    await record.note("replayed", letter(9))
    assert len(pen.written) == 1


async def test_an_interrupted_writer_leaves_nobody_waiting() -> None:
    pen = Pen()
    pen.gate.clear()
    record = record_with(pen)
    writer, other = (asyncio.create_task(record.note("replayed", letter(number))) for number in range(2))
    await asyncio.sleep(0.01)

    writer.cancel()
    done, _ = await asyncio.wait([writer, other], timeout=60.0)

    assert done == {writer, other}
    assert other.exception() is not None


async def test_without_a_stream_nothing_is_written() -> None:
    record = PassRecord(None, {}, now_ms=lambda: 7)

    await record.say("replay.begun")
    await record.note("replayed", letter(1))


@pytest.fixture
def shop() -> Service:
    service = Service("orders", retry=RetryPolicy(immediate=0, delays_s=()))

    @service.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise Reject("closed")

    return service


async def test_a_pass_is_recorded_from_its_begin_to_its_end(shop: Service) -> None:
    async with Stage(shop) as stage:
        stage.broker.declare(stage.names.audit_trail())
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            await operator.dead_letters.discard("orders", Selection(), reason="worthless")
            bundle = operator.trust.current

        found = [read_record(body, bundle) for body in stage.broker.bodies(stage.names.audit)]
        assert [record.fields["act"] for record in found] == ["discard.begun", "discarded", "discard.ended"]
        assert {record.proof for record in found} == {Proof.SIGNED}
        assert found[-1].fields["done"] == 1


async def test_an_act_that_cannot_be_recorded_is_not_done(shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stage(shop) as stage:
        stage.broker.declare(stage.names.audit_trail())
        await stage.send(PlaceOrder(number=1), sender="users")
        await stage.settled()
        async with open_operator(stage._settings, OPERATOR, ambient=stage.clock.ambient) as operator:
            attest = AuditStream.attest

            async def refuse(self: AuditStream, fields: Mapping[str, object]) -> None:
                if "letters" in fields:
                    raise PublishNotConfirmedError("the stream is full")
                await attest(self, fields)

            monkeypatch.setattr(AuditStream, "attest", refuse)
            replayed = await operator.dead_letters.replay("orders", reason="try", stop_after=1)
            with pytest.raises(PublishNotConfirmedError, match="stopped after 0 discards"):
                await operator.dead_letters.discard("orders", Selection(), reason="worthless")

        assert (replayed.replayed, replayed.failed) == (0, 1)
        assert stage.depth("orders", "dead") >= 1
