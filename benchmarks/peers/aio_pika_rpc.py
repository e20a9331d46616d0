"""aio-pika's own request/reply pattern, `patterns.RPC`, with pydantic models instead of pickles."""

import asyncio
from typing import Any
from uuid import UUID

import aio_pika
from aio_pika.patterns import RPC

from benchmarks.peers.order import GetOrder, Order, orders
from benchmarks.peers.role import Options, drive, ready, report, versions

ORDERS = orders()
SETTINGS = "patterns.RPC, JSON of pydantic models both ways, default confirms, prefetch 100 at the server"


class JsonRPC(RPC):
    """As the documentation shows for other formats than pickle."""

    CONTENT_TYPE = "application/json"

    def serialize(self, data: Any) -> bytes:
        model = data["request"] if isinstance(data, dict) else data
        return bytes(model.model_dump_json(), "ascii")

    def deserialize(self, data: bytes) -> Any:
        return data


class ServerRPC(JsonRPC):
    def deserialize(self, data: bytes) -> Any:
        return {"request": GetOrder.model_validate_json(data)}


class ClientRPC(JsonRPC):
    def deserialize(self, data: bytes) -> Any:
        return Order.model_validate_json(data)


async def get_order(*, request: GetOrder) -> Order:
    return ORDERS[request.order_id.int % len(ORDERS)]


async def serve(options: Options) -> None:
    async with await aio_pika.connect_robust(options.url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=options.window)
        rpc = await ServerRPC.create(channel)
        await rpc.register(options.queue, get_order, auto_delete=True)
        ready()
        await asyncio.Event().wait()


async def request(options: Options) -> None:
    async with await aio_pika.connect_robust(options.url) as connection:
        rpc = await ClientRPC.create(await connection.channel())

        async def ask(number: int) -> None:
            await rpc.call(options.queue, {"request": GetOrder(order_id=UUID(int=number))})

        report(await drive(ask, options), settings=SETTINGS, used=versions("aio-pika", "aiormq", "pydantic"))


if __name__ == "__main__":
    chosen = Options.parse()
    asyncio.run({"serve": serve, "request": request}[chosen.role](chosen))
