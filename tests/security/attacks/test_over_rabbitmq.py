"""The decisive attacks once more, over a real RabbitMQ, by a client that knows nothing of this library but its bytes.

The attacker has the broker: he reads every queue, publishes anywhere, and sets any property. He has no key.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import aiormq
import pytest

from messaging import Context, Reject, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.topology import QUARANTINE_MAX_MESSAGES, routing_key
from messaging.operators import open_operator
from messaging.security.development import DevelopmentTrust
from messaging.security.outer import split_parts
from tests.support.arena import MARKER, GetOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.broker import Broker
from tests.support.stage import change_bundle
from tests.support.waiting import eventually, holds

pytestmark = pytest.mark.broker

OPERATOR: Final = "ops:test"
FLOOD_S: Final = 3.0
PARTS: Final = ("commands", "requests", "events", "dead", "refused", "quarantine", "faults")


class Attacker:
    """A plain AMQP client."""

    def __init__(self, channel: aiormq.Channel, namespace: str) -> None:
        self._channel = channel
        self._namespace = namespace
        self.captured: list[aiormq.abc.DeliveredMessage] = []

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.captured]

    @property
    def routed(self) -> list[tuple[str, bytes]]:
        """Routing key and body of everything captured."""
        return [
            (message.delivery.routing_key or "", message.body)
            for message in self.captured
            if isinstance(message.delivery, aiormq.spec.Basic.Deliver)
        ]

    async def listen(self) -> None:
        """Get a copy of everything that is published from now on."""
        queue = f"tap-{uuid4().hex}"
        await self._channel.queue_declare(queue, exclusive=True, auto_delete=True)
        for word in ("commands", "requests", "events", "replies", "dead"):
            await self._channel.queue_bind(queue, f"{self._namespace}.{word}", "#")

        async def take(message: aiormq.abc.DeliveredMessage) -> None:
            self.captured.append(message)

        await self._channel.basic_consume(queue, take, no_ack=True)

    async def publish(self, body: bytes, key: str, *, exchange: str = "commands", **properties: Any) -> None:
        """Publish bytes with any properties."""
        await self._channel.basic_publish(
            body,
            exchange=f"{self._namespace}.{exchange}",
            routing_key=key,
            properties=aiormq.spec.Basic.Properties(**properties),
            wait=False,
        )

    async def depth(self, service: str, part: str) -> int:
        """Return how many messages wait in a queue."""
        found = await self._channel.queue_declare(f"{self._namespace}.{service}.{part}", passive=True)
        return found.message_count or 0

    async def taken_from(self, service: str, part: str) -> list[bytes]:
        """Take everything out of a queue."""
        bodies: list[bytes] = []
        while True:
            message = await self._channel.basic_get(f"{self._namespace}.{service}.{part}", no_ack=True)
            if not isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                return bodies
            bodies.append(message.body)

    async def clean(self) -> None:
        """Delete what the namespace has."""
        for service in ("orders", "users"):
            for part in (*PARTS, *(f"retry.{ms}" for ms in (1_000, 5_000, 30_000, 120_000, 600_000))):
                await self._channel.queue_delete(f"{self._namespace}.{service}.{part}")
                await self._channel.exchange_delete(f"{self._namespace}.{service}.{part}")
            for word in ("return", "undeliverable"):
                await self._channel.exchange_delete(f"{self._namespace}.{service}.{word}")
        for word in ("commands", "requests", "events", "replies", "dead"):
            await self._channel.exchange_delete(f"{self._namespace}.{word}")


@dataclass
class Scene:
    """Two services on a real broker, and the attacker beside them."""

    settings: Settings
    trust: DevelopmentTrust
    orders: Service
    users: Service
    attacker: Attacker
    ran: list[Any] = field(default_factory=list)
    rejects: bool = False

    @property
    def notes(self) -> Counter[str]:
        """How often a command with a note ran."""
        return Counter(message.note for message in self.ran if isinstance(message, PlaceOrder))

    @property
    def counts(self) -> dict[str, int]:
        """The counters of orders."""
        counts = self.orders.health.details["counts"]
        assert isinstance(counts, dict)
        return dict(counts)

    async def depths(self) -> dict[str, int]:
        """What waits in the queues of orders where failures go."""
        return {part: await self.attacker.depth("orders", part) for part in ("dead", "refused", "quarantine")}

    async def captured_command(self) -> bytes:
        """Let users send a command, and return its bytes as the attacker saw them."""
        seen = len(self.attacker.captured)
        await self.users.send(PlaceOrder(note=MARKER))
        await eventually(lambda: len(self.attacker.captured) > seen, what="the attacker had a copy")
        return self.attacker.captured[seen].body


@asynccontextmanager
async def scene_on(broker: Broker, *, fast: bool = True) -> AsyncIterator[Scene]:
    """Run the services and connect the attacker."""
    settings = Settings.development(broker.url, namespace=f"a{uuid4().hex[:12]}", fast=fast)
    trust = settings.shared(DevelopmentTrust, lambda: DevelopmentTrust(ambient=real_ambient()))
    orders, users = Service("orders", settings), Service("users", settings)
    async with aiormq.connect(broker.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        assert isinstance(channel, aiormq.Channel)
        scene = Scene(settings, trust, orders, users, Attacker(channel, settings.namespace))

        @orders.on_command(PlaceOrder)
        async def place(command: PlaceOrder, context: Context) -> None:
            scene.ran.append(command)
            if scene.rejects:
                raise Reject("never")

        @orders.on_request(GetOrder)
        async def get(request: GetOrder, context: Context) -> OrderView:
            return OrderView(status=MARKER)

        @users.on_event(OrderPlaced)
        async def heard(event: OrderPlaced, context: Context) -> None:
            scene.ran.append(event)

        for service in (orders, users):
            trust.join(service.name, service.subscriptions)
        try:
            async with orders, users:
                await scene.attacker.listen()
                yield scene
        finally:
            await scene.attacker.clean()


@pytest.fixture
async def scene(broker: Broker) -> AsyncIterator[Scene]:
    async with scene_on(broker) as found:
        yield found


@pytest.mark.attack(49)
async def test_the_broker_sees_no_payload_in_clear(scene: Scene) -> None:
    scene.rejects = True
    # An operator's reason is written into logs on purpose, and is as secret as the rest on its way there.
    secret, reason = f"{MARKER} {uuid4()}", f"mended {uuid4()}"

    await scene.users.send(PlaceOrder(note=secret))
    await scene.orders.publish(OrderPlaced(note=secret))
    await scene.users.request(GetOrder(note=secret))
    await eventually(lambda: len(scene.attacker.captured) >= 5, what="command, event, request, reply, dead letter")
    async with open_operator(scene.settings, OPERATOR) as operator:
        await eventually(lambda: dead_is_there(scene), what="the dead letter was there")
        await operator.dead_letters.replay("orders", reason=reason)
    await eventually(lambda: len(scene.ran) >= 3, what="the replay ran")

    pieces = {told[at : at + 6].encode() for told in (secret, reason) for at in range(len(told) - 5)}
    for message in scene.attacker.captured:
        beside = repr(message.header.properties).encode() + repr(message.delivery).encode()
        assert not any(piece in message.body or piece in beside for piece in pieces)
    assert any(isinstance(message, OrderPlaced) and message.note == secret for message in scene.ran)


async def dead_is_there(scene: Scene) -> bool:
    return await scene.attacker.depth("orders", "dead") == 1


@pytest.mark.attack(3)
async def test_any_flipped_bit_is_refused(scene: Scene) -> None:
    body = await scene.captured_command()
    await eventually(lambda: scene.notes[MARKER] == 1, what="the true one ran")
    key = routing_key("orders.place_order", 1)
    chance = random.Random(7)  # noqa: S311 - the same bits in every run

    for at in range(len(body)):
        bit = 1 << chance.randrange(8)
        await scene.attacker.publish(body[:at] + bytes((body[at] ^ bit,)) + body[at + 1 :], key)

    await eventually(lambda: refused_in_all(scene) == len(body), what=lambda: f"{scene.counts} of {len(body)}")
    depths = await scene.depths()
    assert scene.notes == {MARKER: 1}
    assert (depths["dead"], depths["refused"]) == (0, 0)
    assert 0 < depths["quarantine"] <= QUARANTINE_MAX_MESSAGES


def refused_in_all(scene: Scene) -> int:
    return sum(count for word, count in scene.counts.items() if word.startswith("skipped."))


@pytest.mark.attack(15)
async def test_plaintext_under_the_right_type_does_not_run(scene: Scene) -> None:
    key = routing_key("orders.place_order", 1)
    for body in (b'{"note": "x"}', b"\x81\xa4note\xa1x", b"", b"\x00" * 1_000_000):
        await scene.attacker.publish(
            body, key, content_type="application/json", message_type="orders.place_order/1", message_id=uuid4().hex
        )

    await eventually(lambda: scene.counts.get("skipped.malformed") == 4, what=lambda: str(scene.counts))
    assert scene.ran == []


@pytest.mark.attack(32)
async def test_what_the_policy_forbids_lands_in_refused(scene: Scene) -> None:
    def denied(payload: dict[str, Any]) -> None:
        payload["policy"]["send"] = []

    await scene.captured_command()
    await eventually(lambda: scene.notes[MARKER] == 1, what="the permitted one ran")
    change_bundle(scene.trust, denied, only=["orders"])
    body = await scene.captured_command()

    await eventually(lambda: scene.counts.get("refused.policy") == 1, what=lambda: str(scene.counts))
    assert scene.notes == {MARKER: 1}
    assert await scene.depths() == {"dead": 0, "refused": 1, "quarantine": 0}
    assert await scene.attacker.taken_from("orders", "refused") == [body]


@pytest.mark.attack(50)
async def test_copies_of_a_message_run_once(scene: Scene) -> None:
    body = await scene.captured_command()
    key = routing_key("orders.place_order", 1)

    for _ in range(200):
        await scene.attacker.publish(body, key)

    await eventually(lambda: scene.counts.get("skipped.duplicate", 0) >= 200, what=lambda: str(scene.counts))
    assert scene.notes == {MARKER: 1}
    assert await scene.depths() == {"dead": 0, "refused": 0, "quarantine": 0}


@pytest.mark.attack(55)
async def test_a_dead_letter_injected_again_does_not_run(scene: Scene) -> None:
    scene.rejects = True
    body = await scene.captured_command()
    await eventually(lambda: dead_is_there(scene), what="it was dead")
    (letter,) = await scene.attacker.taken_from("orders", "dead")
    ran = len(scene.ran)
    key = routing_key("orders.place_order", 1)

    await scene.attacker.publish(body, key)
    await scene.attacker.publish(letter, key)
    await scene.attacker.publish(letter, f"{scene.settings.namespace}.orders.commands", exchange="orders.return")

    await eventually(lambda: scene.counts.get("refused.audience") == 2, what=lambda: str(scene.counts))
    await eventually(lambda: scene.counts.get("skipped.duplicate") == 1, what=lambda: str(scene.counts))
    assert len(scene.ran) == ran
    # What the attacker took away he can put back: an operator reads it as the same letter.
    await scene.attacker.publish(letter, "dead.orders.users", exchange="dead")
    async with open_operator(scene.settings, OPERATOR) as operator:
        await eventually(lambda: dead_is_there(scene), what="it was dead again")
        (listed,) = await operator.dead_letters.list("orders")
    assert listed.is_verified
    assert listed.payload == {"note": MARKER}


@pytest.mark.attack(62)
async def test_forged_properties_change_nothing(scene: Scene) -> None:
    body = await scene.captured_command()
    await eventually(lambda: scene.notes[MARKER] == 1, what="the true one ran")
    fresh = await scene.captured_command()
    await eventually(lambda: scene.notes[MARKER] == 2, what="the second ran")
    key = routing_key("orders.place_order", 1)
    headers: dict[str, Any] = {
        "x-attempt": 500,
        "x-delivery-count": 99,
        "x-first-failed": 1,
        "x-death": [{"queue": "x", "reason": "rejected", "count": 99}],
    }

    for copy in (body, fresh):
        await scene.attacker.publish(
            copy,
            key,
            headers=headers,
            reply_to=f"{scene.settings.namespace}.users.faults",
            correlation_id="evil",
            message_type="orders.cancel_order/1",
            message_id="0" * 32,
            content_type="text/plain",
            priority=9,
        )

    await eventually(lambda: scene.counts.get("skipped.duplicate") == 2, what=lambda: str(scene.counts))
    assert scene.counts["mislabelled"] == 2
    assert scene.notes == {MARKER: 2}


@pytest.mark.attack(62)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
async def test_hostile_properties_stop_nobody(broker: Broker, fast: bool) -> None:
    async with scene_on(broker, fast=fast) as scene:
        table = {f"key-{number}": [True, None, {"deeper": number}] for number in range(2_500)}
        every = {
            "content_encoding": "\u00e9" * 120, "priority": 9, "correlation_id": "x" * 255, "reply_to": "amq.\u2026",
            "expiration": "60000", "timestamp": datetime.fromtimestamp(0, tz=UTC), "app_id": "\x00",
        }  # fmt: skip
        key = routing_key("orders.place_order", 1)
        junk: list[dict[str, Any]] = [
            {"headers": table},
            {"headers": {"x-attempt": "7", "x-death": [{"queue": 1, "count": "many"}], "x-first-failed": -1}},
            {"message_id": "", "message_type": "x" * 255, **every},
        ]

        genuine = await scene.captured_command()
        for properties in junk * 5:
            await scene.attacker.publish(b"junk", key, **properties)
        for properties in junk:
            await scene.attacker.publish(genuine, key, **properties)
        await eventually(lambda: scene.counts.get("skipped.malformed") == 15, what=lambda: str(scene.counts))
        await eventually(lambda: scene.counts.get("skipped.duplicate") == 3, what=lambda: str(scene.counts))

        assert scene.notes == {MARKER: 1}
        assert scene.orders.health.is_ready


@pytest.mark.attack(76)
async def test_a_forged_reply_does_not_take_the_place_of_the_true_one(scene: Scene) -> None:
    await scene.users.request(GetOrder())
    # The answer may be quicker than the attacker's copy of it.
    await eventually(lambda: any(".replies." in key for key, _ in scene.attacker.routed), what="the reply was seen")
    queue, old = next((key, body) for key, body in scene.attacker.routed if ".replies." in key)

    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(scene.users.request(GetOrder())) for _ in range(20)]
        for _ in range(50):
            await scene.attacker.publish(old, queue, exchange="replies")
            await scene.attacker.publish(b"junk", queue, exchange="replies")

    assert [answer.result() for answer in answers] == [OrderView(status=MARKER)] * 20


@pytest.mark.attack(70)
async def test_authentic_messages_never_land_in_quarantine(scene: Scene) -> None:
    notes = [f"{MARKER} {number}" for number in range(300)]

    await scene.users.send_many(PlaceOrder(note=note) for note in notes)
    await eventually(lambda: len(scene.attacker.captured) >= 300, what="all were seen")
    for body in scene.attacker.bodies:
        await scene.attacker.publish(body, routing_key("orders.place_order", 1))

    await eventually(lambda: sum(scene.counts.values()) >= 600, what=lambda: str(scene.counts))
    assert scene.notes == dict.fromkeys(notes, 1)
    assert await scene.depths() == {"dead": 0, "refused": 0, "quarantine": 0}
    # They were signed in batches: a part of one is as authentic as the whole.
    assert any(split_parts(body).size > 1 for body in scene.attacker.bodies)


@pytest.mark.attack(70)
async def test_real_messages_flow_through_a_flood_of_forgeries(scene: Scene) -> None:
    body = await scene.captured_command()
    await eventually(lambda: scene.notes[MARKER] == 1, what="the true one ran")
    key, at = routing_key("orders.place_order", 1), body.index(split_parts(body).signature)
    forged = sent = 0
    until_s = time.monotonic() + FLOOD_S

    def goes_on() -> bool:
        # A machine that stood still for the time has had no flood yet.
        return time.monotonic() < until_s or forged <= 500 or sent <= 5 or len(scene.notes) == 1

    async def flood() -> None:
        nonlocal forged
        while goes_on():
            for _ in range(50):
                forged += 1
                await scene.attacker.publish(body[:at] + os.urandom(64) + body[at + 64 :], key)
            await asyncio.sleep(0)

    async def trade() -> None:
        nonlocal sent
        while goes_on():
            await scene.users.send(PlaceOrder(note=f"real {sent}"))
            sent += 1
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        group.create_task(trade())
    while_flooded = len(scene.notes) - 1
    await eventually(
        lambda: scene.counts.get("skipped.signature", 0) == forged, 60.0, what=lambda: f"{scene.counts} of {forged}"
    )

    depths = await scene.depths()
    assert forged > 500
    assert sent > 5
    assert scene.notes == {MARKER: 1} | {f"real {number}": 1 for number in range(sent)}
    # All of it went through one queue, in its order: the real ones ran while the flood was on.
    assert while_flooded > 0
    assert (depths["dead"], depths["refused"]) == (0, 0)
    assert depths["quarantine"] <= QUARANTINE_MAX_MESSAGES
    await holds(lambda: scene.orders.health.is_ready, 0.1, what="orders was ready all the time")
