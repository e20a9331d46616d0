"""A reader of a queue that takes as much as it may, settles nothing, and waits for its end.

`python -m tests.chaos.reader amqp://… messaging.orders.dead --prefetch 50`. Any client might be this one: it knows
nothing of us.
"""

import argparse
import asyncio

import aiormq
import aiormq.abc

__all__ = ["HOLDS"]

HOLDS = "holds"


async def _main(arguments: argparse.Namespace) -> None:
    connection = await aiormq.connect(arguments.url)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=arguments.prefetch)
    held = 0

    async def hold(_message: aiormq.abc.DeliveredMessage) -> None:
        nonlocal held
        held += 1
        print(HOLDS, held, flush=True)  # noqa: T201 - a command

    await channel.basic_consume(arguments.queue, hold)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("queue")
    parser.add_argument("--prefetch", type=int, required=True)
    asyncio.run(_main(parser.parse_args()))
