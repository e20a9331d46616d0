"""taskiq with its RabbitMQ broker: a task with a pydantic model as its argument."""

import asyncio
import contextlib

from taskiq.api import run_receiver_task
from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

from benchmarks.peers.order import Order, orders
from benchmarks.peers.role import Countdown, Options, acknowledged, drive, report, versions

SETTINGS = (
    "AioPikaBroker(qos), ORJSONSerializer, quorum queue, no result backend; persistent, confirms, mandatory (its "
    "defaults); consumer: run_receiver_task(max_async_tasks = prefetch)"
)
USED = versions("taskiq", "taskiq-aio-pika", "aio-pika", "orjson", "pydantic")


def broker_of(options: Options) -> AioPikaBroker:
    queue = Queue(name=options.queue, type=QueueType.QUORUM)
    broker = AioPikaBroker(options.url, qos=options.window).with_queue(queue)
    broker.with_serializer(ORJSONSerializer())
    return broker


async def publish(options: Options) -> None:
    ready_orders = orders()
    broker = broker_of(options)

    @broker.task(task_name="place_order")
    async def place_order(order: Order) -> None:
        # Declared for its name alone: the consuming process has the body.
        raise NotImplementedError

    await broker.startup()

    async def send(number: int) -> None:
        await place_order.kiq(ready_orders[number % len(ready_orders)])

    report(await drive(send, options), settings=SETTINGS, used=USED)
    await broker.shutdown()


async def consume(options: Options) -> None:
    done = asyncio.Event()
    countdown = Countdown(options, done.set)
    broker = broker_of(options)

    @broker.task(task_name="place_order")
    async def place_order(order: Order) -> None:
        countdown.count()

    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=options.window, run_startup=True))
    await done.wait()
    await acknowledged()
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver
    report({"windowed": countdown.found}, settings=SETTINGS, used=USED)


if __name__ == "__main__":
    chosen = Options.parse()
    asyncio.run({"publish": publish, "consume": consume}[chosen.role](chosen))
