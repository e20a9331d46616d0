"""A delivery that stays at its place."""

from unittest.mock import sentinel

from messaging.core.sealed import Route
from messaging.runtime.held import HeldDelivery
from messaging.transports.base import Death


class Arrived:
    """A delivery that notes what is done to it."""

    def __init__(self) -> None:
        self.body, self.queue, self.exchange, self.routing_key = b"body", "queue", "exchange", "key"
        self.message_id: str | None = "id"
        self.type: str | None = "type"
        self.attempt, self.first_failed_ms = 2, 1_000
        self.redelivered, self.delivery_count = True, 12
        self.deaths: tuple[Death, ...] = (sentinel.death,)
        self.done: list[object] = []

    def ack(self) -> None:
        self.done.append("ack")

    def reject(self) -> None:
        self.done.append("reject")

    def give_back(self) -> None:
        self.done.append("give back")

    async def forward(
        self, route: Route, *, attempt: int = 1, first_failed_ms: int | None = None, timeout_s: float
    ) -> None:
        self.done.append((route, attempt, first_failed_ms, timeout_s))

    def sample(self, route: Route, *, limit_bytes: int) -> None:
        self.done.append((route, limit_bytes))


def test_it_is_what_arrived() -> None:
    arrived = Arrived()

    held = HeldDelivery(arrived)

    for name in (
        *("body", "queue", "exchange", "routing_key", "message_id", "type", "attempt", "first_failed_ms"),
        *("redelivered", "delivery_count", "deaths"),
    ):
        assert getattr(held, name) == getattr(arrived, name)


def test_a_later_try_says_which_it_is() -> None:
    held = HeldDelivery(Arrived(), attempt=5, first_failed_ms=7)

    assert (held.attempt, held.first_failed_ms) == (5, 7)


def test_its_count_may_be_held_down() -> None:
    assert HeldDelivery(Arrived(), count_max=9).delivery_count == 9
    assert HeldDelivery(Arrived(), count_max=20).delivery_count == 12


def test_it_is_never_given_back_alone() -> None:
    arrived = Arrived()
    held = HeldDelivery(arrived)

    held.give_back()
    held.ack()
    held.reject()

    assert arrived.done == ["ack", "reject"]


async def test_it_can_be_moved() -> None:
    arrived, route = Arrived(), Route(exchange="e", routing_key="k")
    held = HeldDelivery(arrived)

    await held.forward(route, attempt=3, first_failed_ms=4, timeout_s=5.0)
    held.sample(route, limit_bytes=6)

    assert arrived.done == [(route, 3, 4, 5.0), (route, 6)]
