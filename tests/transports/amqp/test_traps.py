"""Traps of RabbitMQ that no other test shows on a real one (docs/topology.md, "Each trap and its test")."""

import asyncio
import tracemalloc

import pytest

from messaging.core.sealed import Route
from messaging.core.topology import Argument, Names, Queue, Subscriptions, Topology
from messaging.errors import PublishNotConfirmedError
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import (
    KEY,
    LIMIT_S,
    Recorder,
    ack,
    depth_of,
    dlx,
    eventually_depth,
    label,
    publish,
    rung,
    to,
    work,
)

pytestmark = pytest.mark.broker

LOOKS = 40


async def test_looking_at_dead_letters_again_and_again_takes_none_away(rig: AmqpRig) -> None:
    transport, queue = await rig.transport(), rig.names.queue("orders", "dead")
    await transport.declare(dlx(rig.names))
    exchange = rig.names.undeliverable_exchange("orders")
    await publish(transport, to(exchange, ""), b"a", b"b", b"c")

    counts = []
    for _ in range(LOOKS):
        recorder = Recorder()
        subscription = await transport.consume(queue, recorder, prefetch=10)
        counts.append(max(delivery.delivery_count for delivery in await recorder.reaches(3)))
        await subscription.release()
        await eventually_depth(transport, queue, 3)

    assert counts[-1] <= LOOKS
    assert await depth_of(transport, queue) == 3


async def test_a_look_is_a_use_and_keeps_an_unused_queue(rig: AmqpRig) -> None:
    transport, looked_at, left = await rig.transport(), "looked-at", "left-alone"
    names = [rig.names.queue("orders", part) for part in (looked_at, left)]
    # A machine that stands still for as long takes both queues with it: they live longer than machines stand still.
    arguments: dict[str, Argument] = {"x-queue-type": "classic", "x-expires": 8_000}
    await transport.declare(Topology(queues=tuple(Queue(name=name, arguments=arguments) for name in names)))

    await holds(lambda: _exists(transport, names[0]), for_s=9.0, what="the queue that is looked at stays")

    assert await depth_of(transport, names[1]) is None


async def _exists(transport: object, queue: str) -> bool:
    # Much more often than the queue lives, and not so often that it matters.
    await asyncio.sleep(0.3)
    return await depth_of(transport, queue) is not None  # type: ignore[arg-type]


async def test_a_forged_history_does_not_let_the_broker_drop_a_retry(rig: AmqpRig) -> None:
    transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
    delay = rig.names.rung("orders", 200)
    await transport.declare(rung(rig.names, 200) + work(rig.names))
    # Before 4.0 the broker believes this, sees a circle without a rejection, and drops the message without a word.
    forged = [{"queue": delay, "reason": "expired", "count": 1, "exchange": delay, "routing-keys": [queue]}]
    recorder = Recorder()
    await transport.consume(queue, recorder, prefetch=10)
    await rig.inject(rig.names.commands, KEY, b"x", headers={"x-death": forged})
    (first,) = await recorder.reaches(1)

    await first.forward(Route(exchange=delay, routing_key=queue), attempt=2, timeout_s=LIMIT_S)
    first.ack()

    again = (await recorder.reaches(2))[1]
    assert (again.body, again.attempt) == (b"x", 2)
    again.ack()


async def test_what_is_given_back_without_an_end_is_never_given_up(rig: AmqpRig) -> None:
    # 3.10 counts what is given back too: the limit of work queues must be far above what a shutdown costs.
    transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
    await transport.declare(_real(rig.names))
    await publish(transport, to(rig.names.commands), b"x")
    given_back = 0

    def settle_later(delivery: object) -> None:
        nonlocal given_back
        given_back += 1
        if given_back <= LOOKS:
            delivery.give_back()  # type: ignore[attr-defined]
        else:
            ack(delivery)  # type: ignore[arg-type]

    await transport.consume(queue, settle_later, prefetch=1)

    await eventually(lambda: given_back == LOOKS + 1, LIMIT_S, what="it came back each time")
    await eventually_depth(transport, rig.names.queue("orders", "dead"), 0)


async def test_a_broker_that_neither_reads_nor_confirms_costs_bounded_memory_and_no_call_hangs(rig: AmqpRig) -> None:
    transport = await rig.transport()
    await transport.declare(work(rig.names))
    body = bytes(100_000)
    rig.proxy_of(transport).hold_words()
    tracemalloc.start()
    try:
        outcomes = await asyncio.gather(
            *(
                transport.publish(as_sealed(body), to(rig.names.commands), label(number), timeout_s=2.0)
                for number in range(1_000)
            ),
            return_exceptions=True,
        )
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        rig.proxy_of(transport).release()

    assert {type(outcome) for outcome in outcomes} == {PublishNotConfirmedError}
    # Two channels with 16 MiB each, as messages and as what waits for the socket; 100 MB would be all of them.
    assert peak_bytes < 80 * 1024 * 1024


def _real(names: Names) -> Topology:
    return names.of_service("orders", Subscriptions(commands=frozenset({("orders.place_order", 1)})))
