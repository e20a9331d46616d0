"""`HeldDelivery`: a delivery that stays at its place in the queue until it is done, however often it is tried.

It is never given back alone: it would come again behind what arrived after it. It returns with its channel, in order,
together with everything else that is unsettled.
"""

from messaging.core.sealed import Route
from messaging.transports.base import Death, Delivery

__all__ = ["HeldDelivery"]


class HeldDelivery:
    """One try of a delivery (`messaging.transports.base.Delivery`).

    Args:
        delivery: What arrived.
        attempt: Which attempt this try is; default: what the delivery says.
        first_failed_ms: When it failed first; default: what the delivery says.
        count_max: The most that it says of how often it came back.
    """

    __slots__ = ("_attempt", "_count_max", "_delivery", "_first_failed_ms")

    def __init__(
        self,
        delivery: Delivery,
        *,
        attempt: int | None = None,
        first_failed_ms: int | None = None,
        count_max: int | None = None,
    ) -> None:
        self._delivery = delivery
        self._attempt = delivery.attempt if attempt is None else attempt
        self._first_failed_ms = delivery.first_failed_ms if first_failed_ms is None else first_failed_ms
        self._count_max = count_max

    @property
    def body(self) -> bytes:
        """The bytes as they came."""
        return self._delivery.body

    @property
    def queue(self) -> str:
        """The queue it was read from."""
        return self._delivery.queue

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""
        return self._delivery.exchange

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""
        return self._delivery.routing_key

    @property
    def message_id(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._delivery.message_id

    @property
    def type(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._delivery.type

    @property
    def attempt(self) -> int:
        """Which attempt this is."""
        return self._attempt

    @property
    def first_failed_ms(self) -> int | None:
        """When it failed first."""
        return self._first_failed_ms

    @property
    def redelivered(self) -> bool:
        """The broker's mark."""
        return self._delivery.redelivered

    @property
    def delivery_count(self) -> int:
        """How often it came back, as far as that may be held against it."""
        count = self._delivery.delivery_count
        return count if self._count_max is None else min(count, self._count_max)

    @property
    def deaths(self) -> tuple[Death, ...]:
        """The broker's claims."""
        return self._delivery.deaths

    def ack(self) -> None:
        """Settle: done with it."""
        self._delivery.ack()

    def reject(self) -> None:
        """Give it back as a failure, at the price of its order."""
        self._delivery.reject()

    def give_back(self) -> None:
        """Leave it to the end of its channel."""

    async def forward(
        self, route: Route, *, attempt: int = 1, first_failed_ms: int | None = None, timeout_s: float
    ) -> None:
        """Publish the same bytes elsewhere; see `Delivery.forward`."""
        await self._delivery.forward(route, attempt=attempt, first_failed_ms=first_failed_ms, timeout_s=timeout_s)

    def sample(self, route: Route, *, limit_bytes: int) -> None:
        """Publish the beginning of the body elsewhere, without any promise."""
        self._delivery.sample(route, limit_bytes=limit_bytes)
