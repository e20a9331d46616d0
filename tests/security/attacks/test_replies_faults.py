"""Replies and faults: believed only as the answer to what was really asked, or sent, by whom it was asked of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgpack
import pytest

from messaging import Context, MessagingError, Reject, RequestTimeoutError
from messaging.core.topology import Binding, Queue, Topology
from messaging.security.content import pack_fault
from messaging.security.outer import split_parts
from tests.support.arena import Arena, Charge, GetOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.exhibits import Exhibits
from tests.support.realm import EVERY_KIND, NAMES, resign

FORGED: Final = bytes(msgpack.packb({"ok": {"status": "forged"}}))
TRUE: Final = bytes(msgpack.packb({"ok": {"status": "true"}}))
ASKED: Final = "asked"


class Asking:
    """A request under way: the attacker sees it before orders can."""

    def __init__(self, arena: Arena, request: bytes, answer: "asyncio.Future[OrderView]") -> None:
        self.arena = arena
        self.request = request
        self.answer = answer
        self.queue: str = msgpack.unpackb(split_parts(request).header)[13]

    def arrives(self, *replies: bytes) -> None:
        """Put replies into the reply queue of the one who asks."""
        for reply in replies:
            self.arena.broker.inject(NAMES.replies, self.queue, reply)

    @property
    def unmatched(self) -> int:
        """How many answers were turned away."""
        parts = self.arena.services["users"]._parts
        assert parts is not None
        return parts.replies.unmatched


@asynccontextmanager
async def asking(arena: Arena) -> AsyncIterator[Asking]:
    """Let users ask orders, who does not run: all that comes back is the attacker's."""
    arena.broker.declare(
        Topology(
            queues=(Queue(name=ASKED),),
            bindings=(Binding(exchange=NAMES.requests, queue=ASKED, routing_key="#"),),
        )
    )
    answer = asyncio.ensure_future(arena.services["users"].request(GetOrder(), timeout=60.0))
    for _ in range(200):
        await asyncio.sleep(0)
        if arena.broker.bodies(ASKED):
            break
    (request,) = arena.broker.bodies(ASKED)
    try:
        yield Asking(arena, request, answer)
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


@pytest.fixture
async def quiet(exhibits: Exhibits) -> AsyncIterator[Arena]:
    """An arena where orders does not run."""
    async with Arena(names=("users", "billing")) as arena:
        yield arena
        exhibits.show(arena.ran)


def reply_of(arena: Arena, name: str, request: bytes, payload: bytes = FORGED, **changes: Any) -> bytes:
    """Return a reply as a service would make it that is not orders: its own key under orders' reply."""
    genuine = arena.realm.reply(request, payload=payload, **changes)
    if name == "orders":
        return genuine
    signer = arena.realm.signer(name)
    return resign(genuine, signer, fields={3: name, 4: signer.kid})


@pytest.mark.attack(61)
async def test_no_reply_but_the_true_one_is_believed(quiet: Arena) -> None:
    arena = quiet
    other_request = arena.sealed(GetOrder())
    async with asking(arena) as asked:
        asked_leaf = split_parts(asked.request).leaf()
        genuine = arena.realm.reply(asked.request, payload=FORGED)
        attacks = {
            "from billing": reply_of(arena, "billing", asked.request),
            "from billing in orders' name": resign(genuine, arena.realm.signer("billing")),
            "from the requester itself": reply_of(arena, "users", asked.request),
            "another bind": arena.realm.reply(asked.request, payload=FORGED, bind=bytes(32)),
            "to another request": arena.realm.reply(other_request, payload=FORGED),
            "another type": arena.realm.reply(asked.request, payload=FORGED, name="orders.count_orders"),
            "to another service": arena.realm.reply(other_request, payload=FORGED, audience="users"),
            "flipped": genuine[:-10] + bytes((genuine[-10] ^ 1,)) + genuine[-9:],
            "a command": arena.sealed(),
            "an event": arena.sealed(OrderPlaced()),
            "the request": asked.request,
            "a fault": arena.realm.fault(arena.sealed()),
            "junk": b"junk",
            "nothing": b"",
        }
        asked.arrives(*attacks.values())
        await arena.settled()

        assert not asked.answer.done()
        assert asked.unmatched == len(attacks)
        asked.arrives(arena.realm.reply(asked.request, payload=TRUE))
        assert await asked.answer == OrderView(status="true")
        assert asked_leaf == split_parts(asked.request).leaf()


@pytest.mark.attack(61)
async def test_a_second_and_a_late_reply_are_dropped(quiet: Arena) -> None:
    arena = quiet
    async with asking(arena) as asked:
        first = arena.realm.reply(asked.request, payload=TRUE)
        second = arena.realm.reply(asked.request, payload=FORGED)
        asked.arrives(first, second, first)
        await arena.settled()
        late = arena.realm.reply(asked.request, payload=FORGED)
        asked.arrives(late)
        await arena.settled()

        assert await asked.answer == OrderView(status="true")
        assert asked.unmatched == 3


@pytest.mark.attack(61)
async def test_an_expired_reply_is_dropped(quiet: Arena) -> None:
    arena = quiet
    async with asking(arena) as asked:
        stale = arena.realm.reply(
            asked.request,
            payload=FORGED,
            issued_at_ms=arena.clock.now_ms - 120_000,
            expires_at_ms=arena.clock.now_ms - 61_000,
        )
        asked.arrives(stale)
        await arena.settled()

        assert not asked.answer.done()
        assert asked.unmatched == 1


@pytest.mark.attack(61)
async def test_a_reply_under_a_revoked_key_is_dropped(quiet: Arena) -> None:
    arena = quiet
    async with asking(arena) as asked:
        reply = arena.realm.reply(asked.request, payload=FORGED)
        arena.realm.publish(arena.realm.revoke("orders", "compromise"))
        asked.arrives(reply)
        await arena.settled()

        assert not asked.answer.done()
        assert asked.unmatched == 1


@pytest.mark.attack(61)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"junk",
        bytes(msgpack.packb({})),
        bytes(msgpack.packb({"ok": {"status": 1}})),
        bytes(msgpack.packb({"ok": {"status": "x"}, "fault": {}})),
        bytes(msgpack.packb({"fault": {"error": 1}})),
        bytes(msgpack.packb({"fault": None})),
        bytes(msgpack.packb([1])),
        b"\x91" * 2_000 + b"\xc0",
    ],
)
async def test_a_senseless_answer_of_the_right_service_is_an_error_of_ours(quiet: Arena, payload: bytes) -> None:
    arena = quiet
    async with asking(arena) as asked:
        asked.arrives(arena.realm.reply(asked.request, payload=payload))
        await arena.settled()

        with pytest.raises(MessagingError):
            await asked.answer


@pytest.mark.attack(76)
@pytest.mark.parametrize("count", [1, 500])
async def test_forged_replies_do_not_take_the_place_of_the_true_one(quiet: Arena, count: int) -> None:
    arena = quiet
    async with asking(arena) as asked:
        forged = reply_of(arena, "billing", asked.request)
        spoiled = arena.realm.reply(asked.request, payload=FORGED)
        unreadable = resign(spoiled, arena.realm.signer("orders"), content=bytes(len(split_parts(spoiled).content)))
        asked.arrives(*[forged] * count, unreadable, arena.realm.reply(asked.request, payload=TRUE))

        assert await asked.answer == OrderView(status="true")
        assert asked.unmatched == count + 1


@pytest.mark.attack(76)
async def test_without_a_true_reply_the_caller_gets_none(quiet: Arena) -> None:
    arena = quiet
    async with asking(arena) as asked:
        asked.answer.cancel()
        with pytest.raises(RequestTimeoutError):
            await arena.services["users"].request(GetOrder(), timeout=0.05)


async def rejects(_message: object, _context: Context) -> None:
    """Fail for good."""
    raise Reject("never")


def regrets(arena: Arena) -> list[Any]:
    """Return what users heard of failures."""
    return [run.context.message_id for run in arena.ran if run.service == "users"]


@pytest.mark.attack(75)
async def test_a_fault_of_another_service_never_runs(arena: Arena) -> None:
    original = arena.sealed()
    genuine = arena.realm.fault(original)
    signer = arena.realm.signer("billing")

    outcome = await arena.struck(
        resign(genuine, signer, fields={3: "billing", 4: signer.kid, 7: "dead.billing.users"}),
        resign(genuine, signer),
        service="users",
        part="faults",
    )

    assert outcome.ran == ()
    assert dict(outcome.counts) == {"skipped.malformed": 1, "skipped.signature": 1}


@pytest.mark.attack(75)
async def test_a_fault_about_what_was_never_sent_never_runs(arena: Arena) -> None:
    operators = arena.sealed(sender="ops:alice")
    anothers = arena.sealed(Charge())
    junk = b"no message"
    sent = arena.sealed()
    other = arena.sealed()
    wrong_leaf = arena.realm.fault(sent, payload=pack_fault(other, {"error": "X", "reason": "y"}))
    no_pair = arena.realm.fault(arena.sealed(), payload=b"\xc0")
    not_parsed = arena.realm.fault(arena.sealed(), payload=pack_fault(junk, {"error": "X", "reason": "y"}))
    forged = arena.sealed()
    unsigned = forged[:-10] + bytes((forged[-10] ^ 1,)) + forged[-9:]
    faults = [
        arena.realm.fault(operators),
        arena.realm.fault(anothers),
        arena.realm.fault(unsigned),
        wrong_leaf,
        no_pair,
        not_parsed,
    ]

    outcome = await arena.struck(*faults, service="users", part="faults")

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == len(faults)
    assert outcome.counts.keys() <= {
        "refused.audience",
        "refused.signature",
        "refused.malformed",
        "buried",
    }
    assert outcome.quarantined == ()
    assert outcome.said == {}


@pytest.mark.attack(75)
async def test_a_fault_for_somebody_else_is_refused(arena: Arena) -> None:
    original = arena.sealed(sender="ops:alice")
    fault = arena.realm.fault(original, origin=None)

    outcome = await arena.struck(fault, service="users", part="faults")

    outcome.assert_refused("audience", fault)


@pytest.mark.attack(75)
async def test_two_faults_for_one_failure_are_heard_once(arena: Arena) -> None:
    original = arena.sealed()
    first, second = arena.realm.fault(original), arena.realm.fault(original)
    assert first != second

    outcome = await arena.struck(first, second, first, service="users", part="faults")

    assert len(outcome.ran) == 1
    assert outcome.counts["handled"] == 1
    assert sum(outcome.counts.values()) == 3


@pytest.mark.attack(75)
async def test_a_real_failure_is_heard_once_by_who_sent_the_command(arena: Arena) -> None:
    arena.behave["orders"] = rejects
    body = arena.sealed(PlaceOrder())

    await arena.struck(body)

    assert regrets(arena) == [arena.realm.opener("orders").verify(body, kinds=EVERY_KIND).id]
    assert arena.counts("users") == {"handled": 1}


@pytest.mark.attack(75)
async def test_a_fault_that_fails_itself_is_buried_and_tells_nobody(arena: Arena) -> None:
    arena.behave["users"] = rejects
    fault = arena.realm.fault(arena.sealed())

    outcome = await arena.struck(fault, service="users", part="faults")

    assert dict(outcome.counts) == {"buried": 1}
    assert outcome.dead == (fault,)
    assert outcome.said == {}
