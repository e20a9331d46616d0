"""Two brokers that are no cluster, joined by RabbitMQ's federation: a region each, with services that write across.

What is sealed names no broker, so it may travel over as many as it takes (docs/scaling.md, "Many regions").
"""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from messaging import Context, Service, Settings
from messaging.cli.broker_node import PrivateNode, free_port
from messaging.errors import RequestTimeoutError, UnroutableError
from tests.support.shop import GetOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

LINK_S: Final = 60.0
PROBE_S: Final = 0.2
ANSWER_S: Final = 5.0
# Where a message of this kind is handled pulls it over; what comes back is pulled by the other side.
THERE: Final = "commands|requests|events"
BACK: Final = "replies|dead|events"


class Region(PrivateNode):
    """A private node that can pull from another."""

    def pull_from(self, other: PrivateNode, exchanges: str) -> None:
        """Take from the other's exchanges what is bound here."""
        upstream = {"uri": other.url.rstrip("/"), "ack-mode": "on-confirm"}
        self.ctl("set_parameter", "federation-upstream", "other", json.dumps(upstream))
        pattern = rf"^messaging\.({exchanges})$"
        policy = json.dumps({"federation-upstream-set": "all"})
        self.ctl("set_policy", "--apply-to", "exchanges", "regions", pattern, policy)

    def _write_files(self) -> None:
        super()._write_files()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_federation].\n")


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[tuple[Region, Region]]:
    """Two brokers that know nothing of each other yet."""
    here, there = (Region(tmp_path / name, port=free_port(), name=f"{name}-{os.getpid()}") for name in ("west", "east"))
    with ExitStack() as stack:
        for region in (here, there):
            stack.callback(region.kill)
            region.start()
        yield here, there


@pytest.fixture
async def services(regions: tuple[Region, Region]) -> AsyncIterator[tuple[Service, Service, list[int], list[int]]]:
    """Users in the west, orders in the east; what each of them has heard."""
    west, east = regions
    settings = Settings.development(broker_url=west.url)
    users = Service("users", settings)
    # One trust, two brokers.
    elsewhere = settings.model_copy(update={"broker_url": east.url})
    orders = Service("orders", elsewhere)
    placed: list[int] = []
    told: list[int] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        placed.append(command.number)
        await context.publish(OrderPlaced(number=command.number))

    @orders.on_request(GetOrder)
    async def get_order(request: GetOrder, context: Context) -> OrderView:
        return OrderView(status="placed")

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None:
        told.append(event.number)

    async with orders, users:
        yield users, orders, placed, told


async def send(users: Service, command: PlaceOrder) -> bool:
    try:
        await users.send(command)
    except UnroutableError:
        return False
    return True


async def test_commands_requests_and_events_cross_between_brokers(
    regions: tuple[Region, Region], services: tuple[Service, Service, list[int], list[int]]
) -> None:
    west, east = regions
    users, _, placed, told = services
    alone = await send(users, PlaceOrder(number=0))

    await asyncio.to_thread(east.pull_from, west, THERE)
    await asyncio.to_thread(west.pull_from, east, BACK)
    first = PlaceOrder(number=1)
    # The broker says when the link is up: until then nobody takes the command.
    await eventually(lambda: send(users, first), LINK_S, what="a route to the other broker")
    probes = itertools.count(100)

    async def hears() -> bool:
        # What is published before the link back is up has no subscriber there, and is gone.
        await users.send(PlaceOrder(number=next(probes)))
        await asyncio.sleep(PROBE_S)
        return bool(told)

    await eventually(hears, LINK_S, what="a way back for events")
    many = [PlaceOrder(number=number) for number in range(2, 22)]
    await users.send_many(many)
    await eventually(lambda: set(range(2, 22)) <= set(placed), LINK_S, what="commands in the east")
    await eventually(lambda: set(range(2, 22)) <= set(told), LINK_S, what="events back in the west")
    answers: list[OrderView] = []

    async def is_answered() -> bool:
        # Each exchange has a link of its own: those of requests and replies may be up last.
        with suppress(UnroutableError, RequestTimeoutError):
            answers.append(await users.request(GetOrder(number=1), timeout=ANSWER_S))
        return bool(answers)

    await eventually(is_answered, LINK_S, what="a way back for replies")

    assert not alone
    assert answers == [OrderView(status="placed")]
    assert len(placed) == len(set(placed))
