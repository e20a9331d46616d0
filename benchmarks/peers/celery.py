"""Celery on RabbitMQ: a task with a pydantic model as its argument, as its documentation shows since 5.5."""

import contextlib
import logging

from celery import Celery
from celery.worker import state

from benchmarks.peers.order import Order, orders
from benchmarks.peers.role import Countdown, Options, drive_threads, report, versions

THREADS = 8
SETTINGS = (
    f"confirm_publish: each send waits for its confirm, {THREADS} threads send; ignore_result, no events; "
    "consumer: one process, pool=solo, acks_late, worker_prefetch_multiplier = the window, no gossip, mingle, heartbeat"
)
USED = versions("celery", "kombu", "pydantic")


def app_of(options: Options) -> Celery:
    app = Celery("bench", broker=options.url)
    app.conf.update(
        broker_transport_options={"confirm_publish": True},
        broker_connection_retry_on_startup=False,
        task_default_queue=options.queue,
        task_default_exchange=options.queue,
        task_default_routing_key=options.queue,
        task_default_queue_type="quorum",
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=options.window,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def publish(options: Options) -> None:
    ready_orders = orders()
    app = app_of(options)

    @app.task(name="place_order", pydantic=True)
    def place_order(order: Order) -> None:
        # Declared for its name alone: the consuming process has the body.
        raise NotImplementedError

    def send(number: int) -> None:
        place_order.delay(ready_orders[number % len(ready_orders)].model_dump(mode="json"))

    report(drive_threads(send, options, threads=THREADS), settings=SETTINGS, used=USED)


def consume(options: Options) -> None:
    app = app_of(options)

    def stop() -> None:
        # What the worker's own signal handler sets: it ends in order, acknowledgements included.
        state.should_stop = 0

    countdown = Countdown(options, stop)

    @app.task(name="place_order", pydantic=True)
    def place_order(order: Order) -> None:
        countdown.count()

    worker = app.Worker(
        pool="solo", concurrency=1, loglevel="ERROR", without_gossip=True, without_mingle=True, without_heartbeat=True
    )
    with contextlib.suppress(SystemExit):
        worker.start()
    report({"windowed": countdown.found}, settings=SETTINGS, used=USED)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    chosen = Options.parse()
    {"publish": publish, "consume": consume}[chosen.role](chosen)
