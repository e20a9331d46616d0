"""`Audience`: a fourth service that only listens, so that the story can tell who heard an event, and when."""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

from messaging import Context, Event, Service, Settings
from services.orders.contract import OrderPlaced, OrderRejected
from services.users.contract import UserRegistered

__all__ = ["Audience"]


class Audience:
    """Hears every event of users and orders.

    Args:
        settings: Broker and keys.
    """

    def __init__(self, settings: Settings) -> None:
        self.service = Service("audience", settings)
        self._heard: list[tuple[Event, float]] = []
        self._news = asyncio.Event()

        @self.service.on_event(UserRegistered)
        async def on_registered(event: UserRegistered, _context: Context) -> None:
            self._hear(event)

        @self.service.on_event(OrderPlaced)
        async def on_placed(event: OrderPlaced, _context: Context) -> None:
            self._hear(event)

        @self.service.on_event(OrderRejected)
        async def on_rejected(event: OrderRejected, _context: Context) -> None:
            self._hear(event)

    async def hears(self, kind: type[Event], identity: UUID, *, timeout_s: float = 60.0) -> float:
        """Wait for an event about a user or an order; return when it was heard, by the monotonic clock.

        Raises:
            TimeoutError: it was not heard in time.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                self._news.clear()
                heard = self._find(lambda event: isinstance(event, kind) and identity in _ids_of(event))
                if heard is not None:
                    return heard
                await self._news.wait()

    def _hear(self, event: Event) -> None:
        self._heard.append((event, time.monotonic()))
        self._news.set()

    def _find(self, matches: Callable[[Event], bool]) -> float | None:
        return next((at for event, at in self._heard if matches(event)), None)


def _ids_of(event: Event) -> frozenset[UUID]:
    match event:
        case UserRegistered():
            return frozenset({event.user_id})
        case OrderPlaced() | OrderRejected():
            return frozenset({event.order_id})
        case _:
            return frozenset()
