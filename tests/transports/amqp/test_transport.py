import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog.testing

from messaging.cli.broker_node import PrivateNode, free_port
from messaging.core.sealed import Route
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, ConnectionLostError, PublishNotConfirmedError, TopologyConflictError
from messaging.transports.amqp import AmqpTransport
from messaging.transports.base import LinkState
from tests.support.ambient import REAL
from tests.support.broker import CTL_TIMEOUT_S, Broker, start_node
from tests.support.sealing import as_sealed
from tests.support.waiting import eventually, holds
from tests.transports.amqp_rig import AmqpRig
from tests.transports.rig import KEY, LIMIT_S, Recorder, ack, depth_of, label, publish, to, work

pytestmark = pytest.mark.broker


@contextmanager
def quiet_loop() -> Iterator[list[dict[str, Any]]]:
    """Collect what asyncio complains of: exceptions never retrieved, tasks destroyed while pending."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield complaints
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)


def at(url: str, **options: Any) -> AmqpTransport:
    return AmqpTransport([url], ambient=REAL, **options)


class TestConnecting:
    def test_no_address_is_a_mistake(self) -> None:
        with pytest.raises(ConfigurationError, match="MESSAGING_BROKER_URL"):
            AmqpTransport([], ambient=REAL)

    async def test_closed_port_is_told_after_the_connect_timeout(self) -> None:
        transport = at(f"amqp://guest:s3cret@127.0.0.1:{free_port()}/", connect_timeout_s=0.5)
        started_s = time.monotonic()

        with pytest.raises(ConnectionLostError, match=r"connection refused.*messaging broker up") as caught:
            await asyncio.wait_for(transport.connect(), LIMIT_S)

        assert time.monotonic() - started_s >= 0.4
        assert "s3cret" not in str(caught.value)
        assert transport.state.link is LinkState.CLOSED
        await transport.aclose()

    async def test_wrong_password_is_told_at_once(self, broker: Broker) -> None:
        # Not after the connect timeout, which no test survives.
        transport = at(broker.url.replace(":guest@", ":wrong@"), connect_timeout_s=3_600.0)

        with pytest.raises(ConfigurationError, match="user and password"):
            await transport.connect()

        assert transport.state.link is LinkState.CLOSED

    async def test_missing_virtual_host_is_told_at_once(self, broker: Broker) -> None:
        transport = at(broker.url.rstrip("/") + "/nowhere")

        with pytest.raises(ConfigurationError, match="virtual host 'nowhere'"):
            await transport.connect()

    async def test_failed_connect_can_be_tried_again(self, rig: AmqpRig) -> None:
        transport = await rig.transport()
        await transport.aclose()
        rig.proxy_of(transport).refuse()
        with pytest.raises(ConfigurationError):
            await at(str(rig.url.with_password("wrong"))).connect()

        await rig.proxy_of(transport).open()
        await transport.connect()
        await transport.connect()

        assert transport.state.link is LinkState.CONNECTED
        assert rig.proxy_of(transport).connections_total == 4

    async def test_waits_forever_when_told_to_and_warns(self, rig: AmqpRig) -> None:
        proxy = rig.proxy_of(await rig.transport())
        proxy.refuse()
        transport = at(
            str(rig.url.with_host("127.0.0.1").with_port(proxy.port)), connect_timeout_s=0.2, wait_forever=True
        )

        with structlog.testing.capture_logs() as logs:
            connecting = asyncio.create_task(transport.connect())
            await eventually(lambda: any(entry["event"] == "transport.waiting" for entry in logs), LIMIT_S)
            assert not connecting.done()
            assert transport.state.link is LinkState.CONNECTING
            await proxy.open()
            await asyncio.wait_for(connecting, LIMIT_S)

        waiting = next(entry for entry in logs if entry["event"] == "transport.waiting")
        assert waiting["log_level"] == "warning"
        assert "messaging broker up" in waiting["problem"]
        await transport.aclose()


class TestOnTheWire:
    async def test_only_these_properties_are_written(self, rig: AmqpRig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names, {}))
        plain = Route(exchange=rig.names.commands, routing_key=KEY, persistent=False)
        rich = Route(exchange=rig.names.commands, routing_key=KEY, expiration_ms=60_000)
        await transport.publish(as_sealed(b"plain"), plain, label(1), timeout_s=LIMIT_S)
        retried = label(2, attempt=3, first_failed_ms=5)
        await transport.publish(as_sealed(b"rich"), rich, retried, timeout_s=LIMIT_S)

        async with rig.foreigner() as channel:
            got = [await channel.basic_get(queue, no_ack=True) for _ in range(2)]

        first, second = [
            {name: value for name, value in dict(message.header.properties).items() if value} for message in got
        ]
        written = {"content_type": "application/vnd.messaging.sealed", "message_type": "orders.place_order/1"}
        assert first == {**written, "message_id": label(1).message_id, "delivery_mode": 1}
        assert second == {
            **written,
            "message_id": label(2).message_id,
            "delivery_mode": 2,
            "expiration": "60000",
            "headers": {"x-attempt": 3, "x-first-failed": 5},
        }


class TestThroughput:
    async def test_five_thousand_messages_go_through(self, rig: AmqpRig) -> None:
        transport = await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await transport.consume(rig.names.queue("orders", "commands"), recorder, prefetch=200)
        window = asyncio.Semaphore(200)

        async def send(number: int) -> None:
            async with window:
                await publish(transport, to(rig.names.commands), b"%d" % number, first=number)

        await asyncio.gather(*(send(number) for number in range(5_000)))

        await recorder.reaches(5_000, 3 * LIMIT_S)
        assert sorted(recorder.bodies) == sorted(b"%d" % number for number in range(5_000))
        await transport.aclose()
        assert transport.state.dropped_acks == 0
        assert await depth_of(await rig.transport(), rig.names.queue("orders", "commands")) == 0


class TestMending:
    async def test_leaves_no_complaint_behind(self, rig: AmqpRig) -> None:
        with quiet_loop() as complaints:
            transport = await rig.transport()
            await transport.declare(work(rig.names))
            await transport.consume(rig.names.queue("orders", "commands"), Recorder(settle=ack), prefetch=10)
            publishes = [
                asyncio.create_task(publish(transport, to(rig.names.commands), b"x", first=number))
                for number in range(50)
            ]
            await asyncio.sleep(0)
            await rig.cut(transport)
            await asyncio.gather(*publishes)
            with pytest.raises(TopologyConflictError):
                await publish(transport, to("no.such.exchange"), b"x")
            await publish(transport, to(rig.names.commands), b"y", first=100)
            await transport.aclose()
            before = asyncio.all_tasks()
            await asyncio.sleep(0.05)

        assert complaints == []
        assert {task for task in before if "link" in task.get_name() or "consumer" in task.get_name()} == set()

    async def test_link_that_breaks_again_and_again_loses_nothing(self, rig: AmqpRig) -> None:
        transport, consumer = await rig.transport(), await rig.transport()
        await transport.declare(work(rig.names))
        recorder = Recorder(settle=ack)
        await consumer.consume(rig.names.queue("orders", "commands"), recorder, prefetch=20)
        window = asyncio.Semaphore(50)

        async def send(number: int) -> None:
            async with window:
                await publish_within(transport, rig.names, number, timeout_s=60.0)

        async def harm() -> None:
            for number in range(20):
                await asyncio.sleep(0.2)
                await rig.cut(transport if number % 2 else consumer)

        await asyncio.gather(harm(), *(send(number) for number in range(2_000)))

        wanted = {b"%d" % number for number in range(2_000)}
        await eventually(
            lambda: set(recorder.bodies) == wanted, 2 * LIMIT_S, what=lambda: f"{len(set(recorder.bodies))}"
        )
        assert len(recorder) < 3 * len(wanted)

    async def test_link_events_are_logged_once(self, rig: AmqpRig) -> None:
        with structlog.testing.capture_logs() as logs:
            transport = await rig.transport()
            await rig.cut(transport)
            await eventually(lambda: any(entry["event"] == "transport.restored" for entry in logs), LIMIT_S)
            await transport.aclose()

        events = [(entry["event"], entry["log_level"]) for entry in logs if entry["event"].startswith("transport.")]
        assert events == [
            ("transport.connected", "info"),
            ("transport.lost", "warning"),
            ("transport.restored", "info"),
        ]

    async def test_topology_that_is_gone_is_made_again_after_a_reconnect(self, rig: AmqpRig) -> None:
        transport, queue = await rig.transport(), rig.names.queue("orders", "commands")
        await transport.declare(work(rig.names))
        rig.proxy_of(transport).refuse()
        async with rig.foreigner() as channel:
            await channel.queue_delete(queue)
            await channel.exchange_delete(rig.names.commands)

        await rig.proxy_of(transport).open()
        await publish(transport, to(rig.names.commands), b"x")

        assert await depth_of(transport, queue) == 1


class TestNodeTrouble:
    """What only a broker of one's own may be put through."""

    @pytest.fixture
    async def transport(self, node: PrivateNode) -> AsyncIterator[AmqpTransport]:
        transport = at(node.url)
        await transport.connect()
        yield transport
        await transport.aclose()

    async def test_killed_node_comes_back_and_nothing_is_lost(
        self, node: PrivateNode, transport: AmqpTransport
    ) -> None:
        names = Names("killed")
        await transport.declare(work(names))
        recorder = Recorder(settle=ack)
        subscription = await transport.consume(names.queue("orders", "commands"), recorder, prefetch=50)
        # Killed, RabbitMQ 3.10 forgets a young quorum queue: that there is one is on disk a moment later, or when told.
        await holds(lambda: subscription.is_live, 2.0)
        sync = "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()]."
        await asyncio.to_thread(node.ctl, "eval", sync, timeout_s=CTL_TIMEOUT_S)
        confirmed: set[int] = set()

        async def send(number: int) -> None:
            await publish_within(transport, names, number, timeout_s=90.0)
            confirmed.add(number)

        publishes = [asyncio.create_task(send(number)) for number in range(500)]
        await eventually(lambda: len(confirmed) > 50, LIMIT_S)
        await asyncio.to_thread(node.kill)
        more = [asyncio.create_task(send(500 + number)) for number in range(100)]
        await eventually(lambda: transport.state.link is LinkState.CONNECTING, LIMIT_S)
        await asyncio.to_thread(start_node, node)
        await eventually(lambda: subscription.is_live and transport.state.link is LinkState.CONNECTED, LIMIT_S)

        await asyncio.gather(*publishes, *more)
        wanted = {b"%d" % number for number in range(600)}
        await eventually(
            lambda: set(recorder.bodies) == wanted, 2 * LIMIT_S, what=lambda: f"{len(set(recorder.bodies))}"
        )
        assert confirmed == set(range(600))

    async def test_connections_closed_by_an_operator_come_back(
        self, node: PrivateNode, transport: AmqpTransport
    ) -> None:
        names = Names("closed")
        await transport.declare(work(names))
        recorder = Recorder(settle=ack)
        await transport.consume(names.queue("orders", "commands"), recorder, prefetch=50)
        publishes = [asyncio.create_task(publish_within(transport, names, number)) for number in range(500)]

        await asyncio.to_thread(node.ctl, "close_all_connections", "maintenance", timeout_s=CTL_TIMEOUT_S)
        await asyncio.gather(*publishes)

        wanted = {b"%d" % number for number in range(500)}
        await eventually(
            lambda: set(recorder.bodies) == wanted, 2 * LIMIT_S, what=lambda: f"{len(set(recorder.bodies))}"
        )

    async def test_alarm_blocks_publishes_and_says_so_while_acks_go_on(
        self, node: PrivateNode, transport: AmqpTransport
    ) -> None:
        names = Names("blocked")
        await transport.declare(work(names))
        recorder = Recorder()
        await transport.consume(names.queue("orders", "commands"), recorder, prefetch=1)
        await publish(transport, to(names.commands), b"0", b"1")
        await recorder.reaches(1)

        with structlog.testing.capture_logs() as logs:
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "absolute", "1", timeout_s=CTL_TIMEOUT_S)
            try:
                # The broker tells a connection of the alarm once it publishes.
                with pytest.raises(PublishNotConfirmedError):
                    await publish_within(transport, names, 2, timeout_s=1.5)
                await eventually(lambda: transport.state.link is LinkState.BLOCKED, LIMIT_S)
                with pytest.raises(PublishNotConfirmedError, match=r"never sent.*blocks publishers") as caught:
                    await publish_within(transport, names, 3, timeout_s=0.2)
                recorder.deliveries[0].ack()
                await recorder.reaches(2)
                waiting = asyncio.create_task(publish_within(transport, names, 4))
                await holds(lambda: not waiting.done())
            finally:
                await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6", timeout_s=CTL_TIMEOUT_S)
            await asyncio.wait_for(waiting, LIMIT_S)

        assert not caught.value.refused
        assert transport.state.link is LinkState.CONNECTED
        events = [entry["event"] for entry in logs]
        assert "transport.blocked" in events
        assert "transport.unblocked" in events

    async def test_frozen_node_bounds_the_end(self, node: PrivateNode) -> None:
        # A heartbeat that is missing would end the wait too.
        transport, names = at(node.url, heartbeat_s=600), Names("frozen")
        await transport.connect()
        await transport.declare(work(names))
        await transport.consume(names.queue("orders", "commands"), Recorder(), prefetch=1)
        pid = node.pid
        assert pid is not None

        os.kill(pid, signal.SIGSTOP)
        try:
            publishing = asyncio.create_task(publish_within(transport, names, 1))
            await asyncio.sleep(0)
            # Four seconds, and what a machine that stands still meanwhile adds.
            await asyncio.wait_for(transport.aclose(), 20.0)
        finally:
            os.kill(pid, signal.SIGCONT)

        with pytest.raises((PublishNotConfirmedError, ConnectionLostError)):
            await publishing


async def publish_within(
    transport: AmqpTransport, names: Names, number: int, *, timeout_s: float = 4 * LIMIT_S
) -> None:
    await transport.publish(as_sealed(b"%d" % number), to(names.commands), label(number), timeout_s=timeout_s)
