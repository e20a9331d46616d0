"""Conformance: what is published arrives unchanged, where the bindings say and nowhere else."""

import asyncio

import pytest

from messaging.core.topology import Binding, Exchange, Queue, Topology
from messaging.errors import TopologyConflictError, UnroutableError
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.rig import (
    KEY,
    LIMIT_S,
    Recorder,
    Rig,
    ack,
    depth_of,
    dlx,
    eventually_depth,
    fanout,
    label,
    publish,
    to,
    work,
)

# The border of one AMQP frame is 131 064 bytes of body: one below, on it, one above, and many frames.
BODIES = {
    "empty": b"",
    "text": "Grüße, 訂單 🐇".encode(),
    "every byte": bytes(range(256)),
    "no text": b"\x00\xff\xfe\x80" * 8,
    "below a frame": b"a" * 131_063,
    "a frame": b"b" * 131_064,
    "above a frame": b"c" * 131_065,
    "many frames": bytes(range(256)) * 4_096,
}

TOPICS = [
    ("orders.place_order.v1", "orders.place_order.v1", True),
    ("orders.place_order.v1", "orders.place_order.v2", False),
    ("orders.*.v1", "orders.place_order.v1", True),
    ("orders.*.v1", "orders.v1", False),
    ("orders.*.v1", "orders.a.b.v1", False),
    ("*", "orders", True),
    ("*", "orders.placed", False),
    ("#", "orders.a.b.c.v1", True),
    ("orders.#", "orders", True),
    ("orders.#", "orders.a.b", True),
    ("orders.#", "orders_admin.a", False),
    ("#.v1", "v1", True),
    ("#.v1", "orders.a.v1", True),
    ("orders.#.v1", "orders.v1", True),
    ("orders.#.v1", "orders.a.b.v1", True),
    ("orders.#.v1", "orders.a.b.v2", False),
    ("dead.*.orders", "dead.users.orders", True),
    ("dead.*.orders", "dead.users", False),
    ("dead.orders.#", "dead.orders", True),
    ("dead.orders.#", "dead.orders.users", True),
    ("#.a.#.b", "x.a.y.a.z.b", True),
    ("#.a.#.b", "x.b.y.a", False),
    ("*.#", "one", True),
    ("a.b", "A.B", False),
]


class RoutingCases:
    """Cases of publishing and routing."""

    async def test_message_arrives_as_it_was_published(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(queue, recorder, prefetch=10)

        await transport.publish(as_sealed(b"one"), to(rig.names.commands), label(7), timeout_s=LIMIT_S)

        (delivery,) = await recorder.reaches(1)
        assert delivery.body == b"one"
        assert delivery.queue == queue
        assert delivery.exchange == rig.names.commands
        assert delivery.routing_key == KEY
        assert delivery.message_id == label(7).message_id
        assert delivery.type == "orders.place_order/1"
        assert (delivery.attempt, delivery.first_failed_ms) == (1, None)
        assert (delivery.redelivered, delivery.delivery_count, delivery.deaths) == (False, 0, ())

    async def test_messages_of_one_publisher_arrive_in_order(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        bodies = [b"%d" % number for number in range(200)]
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await publish(transport, to(rig.names.commands), *bodies)

        await recorder.reaches(200)
        assert recorder.bodies == bodies

    async def test_messages_wait_for_their_consumer(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        await publish(transport, to(rig.names.commands), b"early")
        recorder = Recorder(settle=ack)

        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await recorder.reaches(1)
        assert recorder.bodies == [b"early"]

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
    async def test_body_is_not_changed(self, rig: Rig, body: bytes) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await publish(transport, to(rig.names.commands), body)

        (delivery,) = await recorder.reaches(1)
        assert delivery.body == body

    async def test_attempt_and_first_failure_travel_beside_the_body(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        retried = label(1, attempt=3, first_failed_ms=1_700_000_000_123)
        await transport.publish(as_sealed(b"x"), to(rig.names.commands), retried, timeout_s=LIMIT_S)

        (delivery,) = await recorder.reaches(1)
        assert (delivery.attempt, delivery.first_failed_ms) == (3, 1_700_000_000_123)

    @pytest.mark.parametrize("claim", [0, -1, 1001, 2**40, True, "3", b"3", 2.5, None], ids=repr)
    async def test_attempt_out_of_bounds_counts_as_the_first(self, rig: Rig, claim: object) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await rig.inject(rig.names.commands, KEY, b"junk", headers={"x-attempt": claim})

        (delivery,) = await recorder.reaches(1)
        assert (delivery.body, delivery.attempt) == (b"junk", 1)

    @pytest.mark.parametrize("claim", [0, -5, True, "1700000000123", 1.5], ids=repr)
    async def test_first_failure_that_is_no_time_is_ignored(self, rig: Rig, claim: object) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await rig.inject(rig.names.commands, KEY, b"junk", headers={"x-first-failed": claim})

        (delivery,) = await recorder.reaches(1)
        assert delivery.first_failed_ms is None

    async def test_foreign_message_without_properties_is_delivered(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)

        await rig.inject(rig.names.commands, KEY, b"foreign")

        (delivery,) = await recorder.reaches(1)
        assert (delivery.body, delivery.message_id, delivery.type, delivery.deaths) == (b"foreign", None, None, ())

    @pytest.mark.parametrize(("pattern", "key", "matches"), TOPICS)
    async def test_topic_pattern_selects_by_words(self, rig: Rig, pattern: str, key: str, matches: bool) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}, pattern=pattern))

        await publish(transport, to(rig.names.commands, key, mandatory=False), b"x")

        assert await depth_of(transport, rig.names.queue("orders", "commands")) == int(matches)

    async def test_direct_exchange_takes_the_key_as_it_is(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}, pattern="orders.#", kind="direct"))
        queue = rig.names.queue("orders", "commands")

        await publish(transport, to(rig.names.commands, "orders.a", mandatory=False), b"no")
        await publish(transport, to(rig.names.commands, "orders.#"), b"yes")

        assert await depth_of(transport, queue) == 1

    async def test_fanout_exchange_ignores_the_key(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}, pattern="", kind="fanout"))

        await publish(transport, to(rig.names.commands, "whatever.it.is"), b"x")

        assert await depth_of(transport, rig.names.queue("orders", "commands")) == 1

    async def test_queue_bound_twice_gets_one_copy(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names, {}) + work(rig.names, {}, pattern="orders.#"))

        await publish(transport, to(rig.names.commands), b"x")

        assert await depth_of(transport, rig.names.queue("orders", "commands")) == 1

    async def test_each_subscribing_service_gets_its_own_copy(self, rig: Rig) -> None:
        transport = await rig.transport()
        services = ["orders", "users", "billing"]
        recorders = {service: Recorder(settle=ack) for service in services}
        for service in services:
            await transport.declare(work(rig.names, service=service))
            await transport.consume(rig.names.queue(service, "commands"), recorders[service], prefetch=10)

        await publish(transport, to(rig.names.commands), b"a", b"b")

        for recorder in recorders.values():
            await recorder.reaches(2)
            assert recorder.bodies == [b"a", b"b"]

    async def test_fifty_services_each_get_every_message(self, rig: Rig) -> None:
        publisher = await rig.transport()
        consumers = [await rig.transport() for _ in range(5)]
        recorders = [Recorder(settle=ack) for _ in range(50)]
        for number, recorder in enumerate(recorders):
            await publisher.declare(work(rig.names, {}, service=f"s{number}"))
            await consumers[number % 5].consume(rig.names.queue(f"s{number}", "commands"), recorder, prefetch=20)
        bodies = [b"%d" % number for number in range(100)]

        await publish(publisher, to(rig.names.commands), *bodies)

        for recorder in recorders:
            await recorder.reaches(100, 6 * LIMIT_S)
            assert recorder.bodies == bodies

    async def test_unroutable_mandatory_message_raises_with_its_routing_key(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        with pytest.raises(UnroutableError) as caught:
            await publish(transport, to(rig.names.commands, "orders.nobody.v1"), b"x")

        assert caught.value.routing_key == "orders.nobody.v1"
        assert "orders.nobody.v1" in str(caught.value)

    async def test_unroutable_message_does_not_disturb_those_in_flight(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        keys = [KEY, "orders.nobody.v1"] * 20

        outcomes = await asyncio.gather(
            *(
                transport.publish(as_sealed(b"x"), to(rig.names.commands, key), label(number), timeout_s=LIMIT_S)
                for number, key in enumerate(keys)
            ),
            return_exceptions=True,
        )

        assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError] * 20
        await eventually_depth(transport, rig.names.queue("orders", "commands"), 20)

    async def test_event_that_nobody_hears_is_no_error(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(rig.names.shared())

        await publish(transport, to(rig.names.events, "orders.placed.v1", mandatory=False), b"x")

    async def test_publish_to_a_missing_exchange_says_so_and_the_transport_lives_on(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        with pytest.raises(TopologyConflictError, match="nowhere"):
            await publish(transport, to(f"{rig.names.namespace}.nowhere"), b"x")

        await publish(transport, to(rig.names.commands), b"y")
        await eventually_depth(transport, rig.names.queue("orders", "commands"), 1)

    async def test_alternate_exchange_takes_what_cannot_be_routed(self, rig: Rig) -> None:
        transport = await rig.transport()
        back, queue = rig.names.return_exchange("orders"), rig.names.queue("orders", "commands")
        alternate = rig.names.undeliverable_exchange("orders")
        await transport.declare(
            dlx(rig.names)
            + Topology(
                exchanges=(Exchange(name=back, type="direct", alternate=alternate),),
                queues=(Queue(name=queue),),
                bindings=(Binding(exchange=back, queue=queue, routing_key=queue),),
            )
        )
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "dead"), recorder, prefetch=10)

        await publish(transport, to(back, queue), b"known")
        await publish(transport, to(back, "a.missing.queue"), b"missing")

        (delivery,) = await recorder.reaches(1)
        assert (delivery.body, delivery.routing_key) == (b"missing", "a.missing.queue")
        await eventually_depth(transport, queue, 1)

    async def test_fresh_copy_goes_elsewhere_while_the_original_stays(self, rig: Rig) -> None:
        transport, elsewhere = await rig.transport(), rig.names.undeliverable_exchange("orders")
        queue = rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names) + dlx(rig.names))
        originals, copies = Recorder(), Recorder(settle=ack)
        await transport.consume(queue, originals, prefetch=10)
        await transport.consume(rig.names.queue("orders", "dead"), copies, prefetch=10)
        first = label(9, attempt=4, first_failed_ms=1_700_000_000_000)
        await transport.publish(as_sealed(b"the same"), to(rig.names.commands), first, timeout_s=LIMIT_S)
        (original,) = await originals.reaches(1)

        await original.forward(to(elsewhere, "x"), attempt=5, first_failed_ms=1_700_000_000_001, timeout_s=LIMIT_S)
        await original.forward(to(elsewhere, "y"), timeout_s=LIMIT_S)

        moved, fresh = await copies.reaches(2)
        assert moved.body == fresh.body == b"the same"
        assert (moved.exchange, moved.routing_key) == (elsewhere, "x")
        assert (moved.message_id, moved.type) == (original.message_id, original.type)
        assert (moved.attempt, moved.first_failed_ms) == (5, 1_700_000_000_001)
        assert (fresh.attempt, fresh.first_failed_ms) == (1, None)
        await rig.kill(transport)
        await eventually_depth(await rig.transport(), queue, 1)

    async def test_forward_to_nobody_raises(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        await publish(transport, to(rig.names.commands), b"x")
        (delivery,) = await recorder.reaches(1)

        with pytest.raises(UnroutableError, match=r"orders\.nobody"):
            await delivery.forward(to(rig.names.commands, "orders.nobody"), timeout_s=LIMIT_S)

    async def test_sample_copies_the_beginning_and_promises_nothing(self, rig: Rig) -> None:
        transport, samples = await rig.transport(), f"{rig.names.namespace}.samples"
        await transport.declare(work(rig.names) + fanout(samples, samples))
        recorder = Recorder()
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=10)
        taken = Recorder(settle=ack)
        await transport.consume(samples, taken, prefetch=10)
        await publish(transport, to(rig.names.commands), b"0123456789")
        (delivery,) = await recorder.reaches(1)

        delivery.sample(to(rig.names.commands, "orders.nobody"), limit_bytes=4)
        delivery.sample(to(samples, "s"), limit_bytes=4)
        delivery.sample(to(samples, "s"), limit_bytes=100)

        await taken.reaches(2)
        assert taken.bodies == [b"0123", b"0123456789"]
        await holds(lambda: len(recorder) == 1, what="the original is not delivered again")

    async def test_publishes_in_flight_all_arrive(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=100)
        bodies = [b"%d" % number for number in range(1_000)]

        await asyncio.gather(
            *(
                transport.publish(as_sealed(body), to(rig.names.commands), label(number), timeout_s=LIMIT_S)
                for number, body in enumerate(bodies)
            )
        )

        await eventually(lambda: len(recorder) == 1_000, LIMIT_S)
        assert sorted(recorder.bodies) == sorted(bodies)

    async def test_unbound_key_reaches_the_queue_no_more_and_stays_so(self, rig: Rig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        await publish(transport, to(rig.names.commands), b"before")
        (binding,) = work(rig.names).bindings

        await transport.unbind([binding, Binding(exchange=rig.names.commands, queue=queue, routing_key="never.bound")])
        await transport.unbind([binding])
        # What is declared again after a lost connection no longer holds it.
        await rig.cut(transport)

        with pytest.raises(UnroutableError):
            await publish(transport, to(rig.names.commands), b"after", first=1)
        assert await depth_of(transport, queue) == 1

    async def test_queue_and_exchange_that_never_were_can_be_unbound(self, rig: Rig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))

        await transport.unbind(
            [Binding(exchange=rig.names.commands, queue=rig.names.partition("orders", 9), routing_key="k")]
        )

        await publish(transport, to(rig.names.commands), b"goes on")
