"""Our programs of the comparison: two services with all they do to a message; signed, encrypted, typed, confirmed.

    python -m benchmarks.ours publish|consume|serve|request --url amqp://… [--messages N] …

Everything else is as for everybody: `MESSAGING_KEYS` names the keys, `MESSAGING_NAMESPACE` and further settings come
from the environment too, so that two runs with different settings are the same program. The roles are those of
`benchmarks.peers.role`; `declare` makes the queues before the first message.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock
from uuid import UUID

import structlog
from pydantic import BaseModel

from benchmarks.peers.order import MADE_BEFOREHAND, ORDER_BYTES, Line, order_fields
from benchmarks.peers.role import Countdown, Options, drive, ready, report, versions
from messaging import Command, Context, Request, Service, Settings
from messaging.core.sealed import Sealed
from messaging.security.seal import Sealer, Unsigned

__all__ = ["GetOrder", "OrderView", "PlaceOrder", "SignatureCount", "main"]

OWNER: Final = "orders"
SENDER: Final = "shop"
USED: Final = ("aio-pika", "aiormq", "cryptography", "pydantic")


class PlaceOrder(Command, name="orders.place_order"):
    """The order of `benchmarks.peers.order`, as a command."""

    order_id: UUID
    customer: str
    email: str
    currency: str
    total_cents: int
    lines: list[Line]
    note: str


class OrderView(BaseModel):
    """The same as an answer."""

    order_id: UUID
    customer: str
    email: str
    currency: str
    total_cents: int
    lines: list[Line]
    note: str


class GetOrder(Request[OrderView], name="orders.get_order"):
    """The question for it."""

    order_id: UUID


class SignatureCount:
    """Counts the signatures of this process and what they cover, between the edges of its measured stretch."""

    def __init__(self) -> None:
        self.signatures = 0
        self.messages = 0
        self._edges: list[tuple[int, int]] = []

    def at_edge(self) -> None:
        """Note the begin of the stretch, or its end."""
        self._edges.append((self.signatures, self.messages))

    @property
    def mean_batch(self) -> float:
        """Messages for each signature within the stretch: what is sent one at a time has one each."""
        (signatures_before, messages_before), (signatures, messages) = self._edges
        return (messages - messages_before) / max(1, signatures - signatures_before)

    @contextmanager
    def counting(self) -> Iterator["SignatureCount"]:
        """Count for the time of the block."""
        sign = Sealer.sign

        def counted(sealer: Sealer, unsigned: list[Unsigned]) -> list[Sealed]:
            self.signatures += 1
            self.messages += len(unsigned)
            return sign(sealer, unsigned)

        with mock.patch.object(Sealer, "sign", counted):
            yield self


def described(options: Options, settings: Settings, count: SignatureCount | None = None) -> str:
    """Return what was set, and how many messages one signature covered."""
    cap = getattr(settings, "signature_batch_max", None)
    covered = (
        "" if count is None else f"{count.mean_batch:.1f} messages for each signature with {options.window} in flight"
    )
    batches = covered and f", {covered}"
    return (
        "Service.send in asyncio tasks, prefetch = the window, in-memory inbox, keys from files, log level warning, "
        f"all else default; signature_batch_max {'auto' if cap is None else cap}{batches}"
    )


def place_orders(size_bytes: int = ORDER_BYTES) -> list[PlaceOrder]:
    """Return the commands that are sent in turn."""
    return [PlaceOrder.model_validate(order_fields(number, size_bytes)) for number in range(MADE_BEFOREHAND)]


def settings_of(options: Options) -> Settings:
    """Return the settings: the environment's, with this broker and prefetch."""
    return Settings(broker_url=options.url, prefetch=max(1, options.window))


async def declare(options: Options) -> None:
    """Make the queues."""
    service = Service(OWNER, settings_of(options))

    @service.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None: ...

    async with service:
        pass


async def publish(options: Options) -> None:
    """Send commands."""
    settings, commands = settings_of(options), place_orders()
    service = Service(SENDER, settings)
    with SignatureCount().counting() as count:
        async with service:

            async def send(number: int) -> None:
                await service.send(commands[number % len(commands)])

            found = await drive(send, options, at_edge=count.at_edge)
    report(found, settings=described(options, settings, count), used=versions(*USED))


async def consume(options: Options) -> None:
    """Handle the commands that wait."""
    settings, done = settings_of(options), asyncio.Event()
    countdown = Countdown(options, done.set)
    service = Service(OWNER, settings)

    @service.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None:
        countdown.count()

    async with service:
        await done.wait()
    report({"windowed": countdown.found}, settings=described(options, settings), used=versions(*USED))


async def serve(options: Options) -> None:
    """Answer requests until this process is ended."""
    service = Service(OWNER, settings_of(options))
    views = [OrderView.model_validate(order_fields(number)) for number in range(MADE_BEFOREHAND)]

    @service.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        return views[request.order_id.int % MADE_BEFOREHAND]

    async with service:
        ready()
        await asyncio.Event().wait()


async def request(options: Options) -> None:
    """Ask."""
    settings = settings_of(options)
    service = Service(SENDER, settings)
    with SignatureCount().counting() as count:
        async with service:

            async def ask(number: int) -> None:
                await service.request(GetOrder(order_id=UUID(int=number)))

            found = await drive(ask, options, at_edge=count.at_edge)
    report(found, settings=described(options, settings, count), used=versions(*USED))


ROLES: Final = {"declare": declare, "publish": publish, "consume": consume, "serve": serve, "request": request}


def main() -> None:
    """Play the role that the command line names."""
    options = Options.parse()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(ROLES[options.role](options))


if __name__ == "__main__":
    main()
