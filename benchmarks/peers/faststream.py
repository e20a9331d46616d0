"""FastStream on RabbitMQ: a typed subscriber, a typed publisher, and its `request`."""

import asyncio
from uuid import UUID

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers.order import GetOrder, Order, orders
from benchmarks.peers.role import Countdown, Options, acknowledged, drive, ready, report, versions

ORDERS = orders()
SETTINGS = (
    "RabbitBroker(logger=None), JSON by orjson, broker.publish(persist=True) with confirms and mandatory (its "
    "defaults); consumer: Channel(prefetch_count), default ack policy; request: broker.request (holds one lock)"
)
USED = versions("faststream", "aio-pika", "orjson", "pydantic")


async def publish(options: Options) -> None:
    ready_orders = orders()
    async with RabbitBroker(options.url, logger=None) as broker:
        queue = RabbitQueue(options.queue, queue_type=QueueType.QUORUM, durable=True)
        await broker.declare_queue(queue)

        async def send(number: int) -> None:
            await broker.publish(ready_orders[number % len(ready_orders)], queue, persist=True)

        report(await drive(send, options), settings=SETTINGS, used=USED)


async def consume(options: Options) -> None:
    done = asyncio.Event()
    countdown = Countdown(options, done.set)
    broker = RabbitBroker(options.url, logger=None)
    queue = RabbitQueue(options.queue, queue_type=QueueType.QUORUM, durable=True)

    @broker.subscriber(queue, channel=Channel(prefetch_count=options.window))
    async def take(order: Order) -> None:
        countdown.count()

    async with broker:
        await broker.start()
        await done.wait()
        await acknowledged()
    report({"windowed": countdown.found}, settings=SETTINGS, used=USED)


async def serve(options: Options) -> None:
    broker = RabbitBroker(options.url, logger=None)

    @broker.subscriber(RabbitQueue(options.queue), channel=Channel(prefetch_count=options.window))
    async def get_order(request: GetOrder) -> Order:
        return ORDERS[request.order_id.int % len(ORDERS)]

    async with broker:
        await broker.start()
        ready()
        await asyncio.Event().wait()


async def request(options: Options) -> None:
    async with RabbitBroker(options.url, logger=None) as broker:

        async def ask(number: int) -> None:
            answer = await broker.request(GetOrder(order_id=UUID(int=number)), options.queue, timeout=30.0)
            Order.model_validate_json(answer.body)

        report(await drive(ask, options), settings=SETTINGS, used=USED)


if __name__ == "__main__":
    chosen = Options.parse()
    asyncio.run({"publish": publish, "consume": consume, "serve": serve, "request": request}[chosen.role](chosen))
