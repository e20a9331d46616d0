"""Flask behind gunicorn over HTTPS, asked by aiohttp on connections that stay open: the way without a broker."""

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
from flask import Flask, Response
from flask import request as asked
from gunicorn.app.base import BaseApplication

from benchmarks.peers.order import GetOrder, Order, orders
from benchmarks.peers.role import Options, drive, ready, report, versions

WORKERS = 2
THREADS = 32
ORDERS = orders()
SETTINGS = (
    f"gunicorn gthread, {WORKERS} workers of {THREADS} threads (a process for each of two cores), TLS 1.3, keep-alive; "
    "client: one aiohttp session, as many connections as requests in flight, the certificate is verified"
)

app = Flask("bench")


@app.post("/orders/get")
def get_order() -> Response:
    question = GetOrder.model_validate_json(asked.get_data())
    return Response(ORDERS[question.order_id.int % len(ORDERS)].model_dump_json(), mimetype="application/json")


class Server(BaseApplication):
    """gunicorn without its command line."""

    def __init__(self, options: Options) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        certificate = self._options.certificate
        settings: dict[str, Any] = {
            "bind": urlsplit(self._options.url).netloc,
            "worker_class": "gthread",
            "workers": WORKERS,
            "threads": THREADS,
            "keepalive": 60,
            "certfile": certificate,
            "keyfile": certificate,
            "loglevel": "error",
            "when_ready": lambda _: ready(),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return app


async def request(options: Options) -> None:
    context = ssl.create_default_context(cafile=options.certificate)
    connector = aiohttp.TCPConnector(limit=options.window, ssl=context)
    async with aiohttp.ClientSession(options.url, connector=connector) as session:

        async def ask(number: int) -> None:
            body = GetOrder(order_id=UUID(int=number)).model_dump_json()
            async with session.post("/orders/get", data=body, headers={"Content-Type": "application/json"}) as answer:
                answer.raise_for_status()
                Order.model_validate_json(await answer.read())

        report(await drive(ask, options), settings=SETTINGS, used=versions("flask", "gunicorn", "aiohttp", "pydantic"))


if __name__ == "__main__":
    chosen = Options.parse()
    if chosen.role == "serve":
        Server(chosen).run()
    else:
        asyncio.run(request(chosen))
