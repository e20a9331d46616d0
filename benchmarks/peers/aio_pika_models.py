"""aio-pika as its quick start shows it, with pydantic models around: what one writes without a framework."""

import asyncio

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.peers.order import Order, orders
from benchmarks.peers.role import Countdown, Options, acknowledged, drive, report, versions

SETTINGS = (
    "connect_robust, confirms, mandatory, persistent; consumer: set_qos(prefetch), queue.consume(callback), "
    "async with message.process()"
)
USED = versions("aio-pika", "aiormq", "pydantic")


async def publish(options: Options) -> None:
    ready_orders = orders()
    async with await aio_pika.connect_robust(options.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(options.queue, durable=True, arguments={"x-queue-type": "quorum"})

        async def send(number: int) -> None:
            body = ready_orders[number % len(ready_orders)].model_dump_json().encode()
            message = aio_pika.Message(
                body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await channel.default_exchange.publish(message, options.queue, mandatory=True)

        report(await drive(send, options), settings=SETTINGS, used=USED)


async def consume(options: Options) -> None:
    done = asyncio.Event()
    countdown = Countdown(options, done.set)
    async with await aio_pika.connect_robust(options.url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=options.window)
        queue = await channel.get_queue(options.queue)

        async def take(message: AbstractIncomingMessage) -> None:
            async with message.process():
                Order.model_validate_json(message.body)
            countdown.count()

        await queue.consume(take)
        await done.wait()
        await acknowledged()
    report({"windowed": countdown.found}, settings=SETTINGS, used=USED)


if __name__ == "__main__":
    chosen = Options.parse()
    asyncio.run({"publish": publish, "consume": consume}[chosen.role](chosen))
