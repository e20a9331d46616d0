"""Dramatiq on RabbitMQ: an actor that validates its argument with pydantic."""

import logging
import os
import threading

# Read when its worker is imported; without it the prefetch would be 16.
os.environ["dramatiq_queue_prefetch"] = "100"  # noqa: SIM112 - that is its name

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.order import Order, orders
from benchmarks.peers.role import Countdown, Options, drive_threads, report, versions

THREADS = 8
SETTINGS = (
    f"RabbitmqBroker(confirm_delivery=True): each send waits for its confirm, {THREADS} threads send; "
    f"consumer: one process, {THREADS} threads (its default), dramatiq_queue_prefetch=100"
)
USED = versions("dramatiq", "pika", "pydantic")


def publish(options: Options) -> None:
    ready_orders = orders()
    broker = RabbitmqBroker(url=options.url, confirm_delivery=True)
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=options.queue, actor_name="place_order")
    def place_order(fields: dict[str, object]) -> None:
        # Declared for its name alone: the consuming process has the body.
        raise NotImplementedError

    def send(number: int) -> None:
        place_order.send(ready_orders[number % len(ready_orders)].model_dump(mode="json"))

    report(drive_threads(send, options, threads=THREADS), settings=SETTINGS, used=USED)


def consume(options: Options) -> None:
    done = threading.Event()
    countdown = Countdown(options, done.set)
    lock = threading.Lock()
    broker = RabbitmqBroker(url=options.url, confirm_delivery=True)
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=options.queue, actor_name="place_order")
    def place_order(fields: dict[str, object]) -> None:
        Order.model_validate(fields)
        with lock:
            countdown.count()

    worker = Worker(broker, worker_threads=THREADS)
    worker.start()
    done.wait()
    worker.stop()
    report({"windowed": countdown.found}, settings=SETTINGS, used=USED)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    chosen = Options.parse()
    {"publish": publish, "consume": consume}[chosen.role](chosen)
