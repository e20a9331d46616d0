"""Dead letters on demand: commands that the shop of an installation refuses for good."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

from messaging.core.message import Command
from messaging.operators import open_operator
from messaging.settings import Settings
from tests.support.installation import Installation, until

__all__ = ["bury", "clear", "dead_ids"]


class PlaceOrder(Command, name="shop.place_order"):
    """The shop's command, as a sender knows it."""

    order_id: UUID
    total_cents: int
    note: str = ""


def bury(installation: Installation, *notes: str) -> list[str]:
    """Send commands that fail and wait until they are dead; returns the letters' ids, oldest first."""
    before = len(dead_ids(installation))
    asyncio.run(_send(installation, notes))
    until(lambda: len(dead_ids(installation)) == before + len(notes), what=f"{len(notes)} dead letters", timeout_s=60.0)
    return dead_ids(installation)


def clear(installation: Installation) -> None:
    """Discard all dead letters of the shop."""
    result = installation.call("dead", "discard", "shop", "--yes", "--reason", "a clean start")
    assert result.exit_code in (0, 5), result.stderr


def dead_ids(installation: Installation) -> list[str]:
    """Return the ids of the shop's dead letters, oldest first."""
    return [str(letter["id"]) for letter in installation.json("dead", "list", "shop", "--json")]


async def _send(installation: Installation, notes: Sequence[str]) -> None:
    settings = Settings(broker_url=installation.broker_url, keys=installation.keys, namespace=installation.namespace)
    async with open_operator(settings, "ops:dev") as operator, asyncio.TaskGroup() as group:
        for note in notes:
            group.create_task(operator.send(PlaceOrder(order_id=uuid4(), total_cents=0, note=note)))
