"""What moving bytes costs: the fast path and the plain one, without and with the supervisor, by kind of queue.

    python -m benchmarks.transport [--messages 5000] [--rounds 5] [--on node|tls|cluster] [--url amqp://…]

It starts private RabbitMQ nodes, or takes an address. Window and prefetch are 100; messages persistent, 1 KiB,
mandatory and confirmed. The paths are run in turn, round by round; figures are medians. CPU is this process's, user and
system, per message; both the publishing and the consuming side are this process, one after the other. Only ratios of
one run travel between machines.

- channel: `open_channel`, `publish` and `settle`, without the supervisor above.
- transport: `AmqpTransport.publish` in one task per message, and `consume`.
- service: `Service.send` in one task per message, and a handler; a 450-byte model, signed with its tick and encrypted.
"""

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import structlog

from benchmarks.brokers import version_of
from benchmarks.grounds import Ground, add_options, ground
from benchmarks.programs import run_benchmark
from messaging import Command, Context, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.sealed import Label, Route, Sealed
from messaging.core.topology import Argument, Binding, Exchange, Queue, Topology
from messaging.transports.amqp import AmqpTransport
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.capability import FastPath
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.settlements import How
from messaging.transports.amqp.tls import Tls
from messaging.transports.base import Delivery

WINDOW = 100
BODY_BYTES = 1024
EXCHANGE = "benchmark.commands"
ROUTE = Route(exchange=EXCHANGE, routing_key="orders.place_order.v1")
KINDS: Mapping[str, Mapping[str, Argument]] = {
    "classic": {},
    "quorum": {"x-queue-type": "quorum", "x-delivery-limit": 100},
}
PATHS = ("plain", "fast")


@dataclass(frozen=True)
class Row:
    """One line of the table: medians."""

    layer: str
    queue: str
    path: str
    publish_us: float
    publish_per_s: float
    consume_us: float
    consume_per_s: float


@dataclass(frozen=True)
class Cost:
    """One measured stretch."""

    cpu_us: float
    per_s: float


async def measured(work: Callable[[], Awaitable[None]], messages: int) -> Cost:
    """Run it and return what each message cost."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await work()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return Cost(cpu_us=cpu_s * 1e6 / messages, per_s=messages / wall_s)


class ChannelLayer:
    """Channels alone."""

    def __init__(self, ground: Ground, *, fast: bool) -> None:
        self._node = Node.parse(ground.url, ground.tls)
        self._fast_path = FastPath(is_on=fast)

    async def run(self, queue: str, messages: int) -> tuple[Cost, Cost]:
        """Return the cost of publishing and of consuming."""
        connection = await Connection.open(
            self._node, name="benchmark", heartbeat_s=10, timeout_s=10.0, fast_path=self._fast_path
        )
        publisher = await open_channel(connection, confirms=True)
        consumer = await open_channel(connection, confirms=False)
        body = bytes(BODY_BYTES)

        async def publish() -> None:
            room = asyncio.Semaphore(WINDOW)

            def release(confirm: asyncio.Future[None]) -> None:
                confirm.result()
                room.release()

            for number in range(messages):
                await room.acquire()
                label = Label(message_id=f"{number:032x}", type="orders.place_order/1")
                confirm = publisher.publish(Parcel(body=body, route=ROUTE, label=label, message_id=label.message_id))
                confirm.add_done_callback(release)
            for _ in range(WINDOW):
                await room.acquire()

        async def consume() -> None:
            done = asyncio.Event()
            left = itertools.count(messages - 1, -1)

            def take(message: Message) -> None:
                consumer.settle(message.delivery_tag, How.ACK)
                if not next(left):
                    done.set()

            await consumer.consume(queue, take, prefetch=WINDOW, tag="benchmark")
            await done.wait()
            await consumer.settled()

        published = await measured(publish, messages)
        consumed = await measured(consume, messages)
        await consumer.aclose()
        await publisher.aclose()
        await connection.aclose()
        return published, consumed


class TransportLayer:
    """The whole transport."""

    def __init__(self, ground: Ground, *, fast: bool) -> None:
        self._transport = AmqpTransport([ground.url], ambient=real_ambient(), fast=fast, tls=ground.tls)

    async def run(self, queue: str, messages: int) -> tuple[Cost, Cost]:
        """Return the cost of publishing and of consuming."""
        transport = self._transport
        await transport.connect()
        body = Sealed(bytes(BODY_BYTES))

        async def publish() -> None:
            room = asyncio.Semaphore(WINDOW)

            async def one(number: int) -> None:
                label = Label(message_id=f"{number:032x}", type="orders.place_order/1")
                await transport.publish(body, ROUTE, label, timeout_s=30.0)
                room.release()

            async with asyncio.TaskGroup() as tasks:
                for number in range(messages):
                    await room.acquire()
                    tasks.create_task(one(number))

        async def consume() -> None:
            done = asyncio.Event()
            left = itertools.count(messages - 1, -1)

            def take(delivery: Delivery) -> None:
                delivery.ack()
                if not next(left):
                    done.set()

            await transport.consume(queue, take, prefetch=WINDOW)
            await done.wait()

        published = await measured(publish, messages)
        consumed = await measured(consume, messages)
        await transport.aclose()
        return published, consumed


class PlaceOrder(Command, name="orders.place_order", version=1):
    """What services send here."""

    order_id: str
    customer: str
    note: str


class ServiceLayer:
    """Two services, with everything that they do to a message."""

    def __init__(self, ground: Ground, *, fast: bool) -> None:
        files = ground.tls or Tls()
        self._settings = Settings.development(
            broker_url=ground.url,
            namespace="benchservice",
            prefetch=WINDOW,
            fast=fast,
            tls_ca_file=files.ca_file,
            tls_cert_file=files.cert_file,
            tls_key_file=files.key_file,
        )

    async def run(self, queue: str, messages: int) -> tuple[Cost, Cost]:
        """Return the cost of sending and of handling; the queue is the service's own."""
        del queue
        shop, orders = Service("shop", settings=self._settings), Service("orders", settings=self._settings)
        sent, done, left = asyncio.Event(), asyncio.Event(), itertools.count(messages - 1, -1)

        @orders.on_command(PlaceOrder)
        async def place(_: PlaceOrder, __: Context) -> None:
            # A service begins with one delivery at a time: the first one holds up all others.
            await sent.wait()
            if not next(left):
                done.set()

        async def send() -> None:
            room = asyncio.Semaphore(WINDOW)

            async def one(number: int) -> None:
                await shop.send(PlaceOrder(order_id=str(number), customer="c" * 20, note="n" * 400))
                room.release()

            async with asyncio.TaskGroup() as tasks:
                for number in range(messages):
                    await room.acquire()
                    tasks.create_task(one(number))

        async def handle() -> None:
            sent.set()
            await done.wait()

        async with orders, shop:
            return await measured(send, messages), await measured(handle, messages)


LAYERS: Mapping[str, type[ChannelLayer] | type[TransportLayer] | type[ServiceLayer]] = {
    "channel": ChannelLayer,
    "transport": TransportLayer,
    "service": ServiceLayer,
}
# Commands wait in quorum queues.
COMBINATIONS = [
    (layer, kind) for layer, kind in itertools.product(LAYERS, KINDS) if (layer, kind) != ("service", "classic")
]


async def measure(
    ground: Ground, *, messages: int, rounds: int, layers: Sequence[str] = tuple(LAYERS), paths: Sequence[str] = PATHS
) -> list[Row]:
    """Return the table, of the chosen layers and paths."""
    found: dict[tuple[str, str, str], list[tuple[Cost, Cost]]] = {}
    for kind, arguments in KINDS.items():
        queue = f"benchmark.orders.{kind}"
        topology = Topology(
            exchanges=(Exchange(name=EXCHANGE, type="topic"),),
            queues=(Queue(name=queue, arguments=arguments),),
            bindings=(Binding(exchange=EXCHANGE, queue=queue, routing_key=ROUTE.routing_key),),
        )
        admin = AmqpTransport([ground.url], ambient=real_ambient(), tls=ground.tls)
        await admin.connect()
        await admin.declare(topology)
        # The first round is not counted: the broker and this process warm up.
        for turn in range(rounds + 1):
            here = [layer for layer, each in COMBINATIONS if each == kind and layer in layers]
            for layer, path in itertools.product(here, paths):
                costs = await LAYERS[layer](ground, fast=path == "fast").run(queue, messages)
                if turn:
                    found.setdefault((layer, kind, path), []).append(costs)
        await admin.aclose()
        await delete(ground, queue)
    return [row(*key, costs) for key, costs in sorted(found.items())]


async def delete(ground: Ground, queue: str) -> None:
    """Delete a queue: the next kind is bound to the same exchange."""
    node = Node.parse(ground.url, ground.tls)
    connection = await Connection.open(node, name="benchmark", heartbeat_s=10, timeout_s=10.0)
    async with connection.throwaway() as channel:
        await channel.queue_delete(queue)
    await connection.aclose()


def row(layer: str, queue: str, path: str, costs: list[tuple[Cost, Cost]]) -> Row:
    """Return the medians."""

    def median(values: Iterator[float]) -> float:
        return round(statistics.median(values), 1)

    return Row(
        layer=layer,
        queue=queue,
        path=path,
        publish_us=median(published.cpu_us for published, _ in costs),
        publish_per_s=median(published.per_s for published, _ in costs),
        consume_us=median(consumed.cpu_us for _, consumed in costs),
        consume_per_s=median(consumed.per_s for _, consumed in costs),
    )


def table(rows: list[Row], *, where: str, messages: int, rounds: int) -> str:
    """Return it as Markdown, with the ratio of each pair."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, aiormq {version('aiormq')}"
    lines = [
        "# Moving bytes: the plain path and the fast one",
        "",
        f"{machine}; {where}. {messages} messages of {BODY_BYTES} bytes, window and prefetch {WINDOW}, medians of "
        f"{rounds} interleaved rounds. CPU µs of this process per message.",
        "",
        "| layer | queue | path | publish µs | publish/s | consume µs | consume/s |",
        "|---|---|---|---|---|---|---|",
    ]
    by_key = {(each.layer, each.queue, each.path): each for each in rows}
    for layer, queue in COMBINATIONS:
        for path in PATHS:
            one = by_key[layer, queue, path]
            lines.append(
                f"| {layer} | {queue} | {path} | {one.publish_us} | {one.publish_per_s:.0f} | {one.consume_us} "
                f"| {one.consume_per_s:.0f} |"
            )
        plain, fast = by_key[layer, queue, "plain"], by_key[layer, queue, "fast"]
        lines.append(
            f"| {layer} | {queue} | **plain : fast** | **{plain.publish_us / fast.publish_us:.1f}** "
            f"| {fast.publish_per_s / plain.publish_per_s:.1f} x | **{plain.consume_us / fast.consume_us:.1f}** "
            f"| {fast.consume_per_s / plain.consume_per_s:.1f} x |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the table as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000, help="per round and figure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="transport", help="of the files that it writes")
    add_options(parser)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    with ground(options) as found:
        release = asyncio.run(version_of(found.url, found.tls))
        rows = run_benchmark(measure(found, messages=options.messages, rounds=options.rounds))
    where = f"{found.title}, RabbitMQ {release}"
    text = table(rows, where=where, messages=options.messages, rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.md").write_text(text + "\n")
    (options.out / f"{options.name}.json").write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    print(text)  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
