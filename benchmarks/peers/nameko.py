"""Nameko's RPC: a service of its container, and its standalone proxy, with pydantic models as JSON."""

import time
import warnings
from collections import deque
from typing import Any
from uuid import UUID

# Its maintainers advise against Eventlet for new programs; Nameko stands on it.
warnings.simplefilter("ignore", DeprecationWarning)

import eventlet  # noqa: E402

eventlet.monkey_patch()

from nameko.containers import ServiceContainer  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.standalone.rpc import ServiceRpcProxy  # noqa: E402

from benchmarks.peers.order import GetOrder, Order, orders  # noqa: E402
from benchmarks.peers.role import Json, Options, Stretch, ready, report, say, versions  # noqa: E402

ORDERS = orders()
SETTINGS = "ServiceRpcProxy, call_async for the window; server: ServiceContainer, max_workers 100, persistent messages"


class Orders:
    name = "bench_orders"

    @rpc
    def get_order(self, fields: dict[str, object]) -> object:
        request = GetOrder.model_validate(fields)
        return ORDERS[request.order_id.int % len(ORDERS)].model_dump(mode="json")


def config_of(options: Options) -> dict[str, object]:
    return {"AMQP_URI": options.url, "max_workers": options.window}


def serve(options: Options) -> None:
    container = ServiceContainer(Orders, config_of(options))
    container.start()
    ready()
    container.wait()


def request(options: Options) -> None:
    with ServiceRpcProxy(Orders.name, config_of(options), timeout=60) as proxy:

        def windows(count: int, window: int) -> list[float]:
            latencies_s: list[float] = []
            asked: deque[tuple[float, Any]] = deque()

            def settle() -> None:
                began_s, answer = asked.popleft()
                Order.model_validate(answer.result())
                latencies_s.append(time.perf_counter() - began_s)

            for number in range(count):
                asked.append((time.perf_counter(), proxy.get_order.call_async(question(number))))
                if len(asked) == window:
                    settle()
            while asked:
                settle()
            return latencies_s

        windows(options.warm_up, options.window)
        say("BEGIN")
        stretch = Stretch()
        found: Json = {"windowed": stretch.end(options.messages, windows(options.messages, options.window))}
        say("END")
        stretch = Stretch()
        found["sequential"] = stretch.end(options.sequential, windows(options.sequential, 1))
    report(found, settings=SETTINGS, used=versions("nameko", "kombu", "eventlet", "pydantic"))


def question(number: int) -> dict[str, object]:
    return GetOrder(order_id=UUID(int=number)).model_dump(mode="json")


if __name__ == "__main__":
    chosen = Options.parse()
    {"serve": serve, "request": request}[chosen.role](chosen)
