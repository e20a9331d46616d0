"""The bare channel of aiormq, reached through aio-pika: bytes in, bytes out, no model. The ceiling of that client."""

import asyncio

import aio_pika
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from benchmarks.peers.order import orders
from benchmarks.peers.role import Countdown, Options, acknowledged, drive, report, versions

SETTINGS = "aiormq channel, ready bytes (no model), confirms, mandatory, persistent; consumer: callback, basic_ack each"


async def publish(options: Options) -> None:
    bodies = [order.model_dump_json().encode() for order in orders()]
    properties = Basic.Properties(delivery_mode=2, content_type="application/json")
    async with await aio_pika.connect(options.url) as connection:
        channel = await (await connection.channel(publisher_confirms=True)).get_underlay_channel()
        await channel.queue_declare(options.queue, durable=True, arguments={"x-queue-type": "quorum"})

        async def send(number: int) -> None:
            await channel.basic_publish(
                bodies[number % len(bodies)], routing_key=options.queue, properties=properties, mandatory=True
            )

        report(await drive(send, options), settings=SETTINGS, used=versions("aio-pika", "aiormq"))


async def consume(options: Options) -> None:
    done = asyncio.Event()
    countdown = Countdown(options, done.set)
    async with await aio_pika.connect(options.url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        await channel.basic_qos(prefetch_count=options.window)

        async def take(message: DeliveredMessage) -> None:
            await channel.basic_ack(message.delivery_tag or 0)
            countdown.count()

        await channel.basic_consume(options.queue, take)
        await done.wait()
        await acknowledged()
    report({"windowed": countdown.found}, settings=SETTINGS, used=versions("aio-pika", "aiormq"))


if __name__ == "__main__":
    chosen = Options.parse()
    asyncio.run({"publish": publish, "consume": consume}[chosen.role](chosen))
