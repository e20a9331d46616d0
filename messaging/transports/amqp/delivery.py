"""One message that arrived over AMQP. All but the body is a stranger's word: what has the wrong type is not there.

Nothing is looked at before somebody asks: most deliveries are settled after a look at the body and two headers.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.settlements import How
from messaging.transports.base import Death

__all__ = ["AmqpDelivery", "Outlet"]

_ATTEMPT_MAX: Final = 1000


class Outlet(Protocol):
    """The way out for what is moved elsewhere."""

    async def forward(self, body: bytes, route: Route, label: Label, *, timeout_s: float) -> None:
        """Publish, confirmed."""

    def sample(self, body: bytes, route: Route, label: Label) -> None:
        """Publish without waiting."""


class AmqpDelivery:
    """A delivery of one channel.

    Args:
        message: What the channel read.
        queue: The queue it was read from.
        settle: Tells the channel; called once at most.
        outlet: Where to publish what is moved.

    Attributes:
        body: The bytes as they came.
        queue: The queue it was read from.
        redelivered: The broker's mark.
    """

    __slots__ = ("_is_settled", "_message", "_outlet", "_settle", "body", "queue", "redelivered")

    def __init__(self, message: Message, queue: str, settle: Callable[[int, How], None], outlet: Outlet) -> None:
        self.body = message.body
        self.queue = queue
        self.redelivered = message.redelivered
        self._message = message
        self._settle = settle
        self._outlet = outlet
        self._is_settled = False

    @property
    def exchange(self) -> str:
        """The exchange of this hop."""
        return self._message.exchange

    @property
    def routing_key(self) -> str:
        """The routing key of this hop."""
        return self._message.routing_key

    @property
    def message_id(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._message.message_id

    @property
    def type(self) -> str | None:
        """The AMQP property, unsigned."""
        return self._message.type

    @property
    def attempt(self) -> int:
        """`x-attempt` when it is an int in 1…1000, else 1."""
        headers = self._message.headers
        # Nearly all have no table, and this is asked of every one.
        value = _int(headers.get("x-attempt")) if headers else None
        return value if value is not None and 1 <= value <= _ATTEMPT_MAX else 1

    @property
    def first_failed_ms(self) -> int | None:
        """`x-first-failed` when it is a positive int, else None."""
        value = _int(self._header("x-first-failed"))
        return value if value is not None and value > 0 else None

    @property
    def delivery_count(self) -> int:
        """How often it came back unsettled, by the broker's count; 0 when the queue does not count."""
        # A publisher can write this header too; the broker replaces it, but only once the message came back.
        return max(0, _int(self._header("x-delivery-count")) or 0) if self.redelivered else 0

    @property
    def deaths(self) -> tuple[Death, ...]:
        """The broker's `x-death`, a claim."""
        entries = self._header("x-death")
        return tuple(_death(entry) for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()

    def ack(self) -> None:
        """Settle: done with it."""
        self._say(How.ACK)

    def reject(self) -> None:
        """Give it back as a failure: the broker's count rises."""
        self._say(How.REJECT)

    def give_back(self) -> None:
        """Give back what was never started."""
        self._say(How.GIVE_BACK)

    async def forward(
        self, route: Route, *, attempt: int = 1, first_failed_ms: int | None = None, timeout_s: float
    ) -> None:
        """Publish the same bytes elsewhere, confirmed and with fresh headers; the delivery itself stays unsettled.

        Raises:
            UnroutableError: The route is mandatory and reaches no queue.
            PublishNotConfirmedError: Refused, or not confirmed within `timeout_s` seconds.
            ConnectionLostError: The transport is closed.
        """
        label = self._label(attempt=attempt, first_failed_ms=first_failed_ms)
        await self._outlet.forward(self.body, route, label, timeout_s=timeout_s)

    def sample(self, route: Route, *, limit_bytes: int) -> None:
        """Publish the first `limit_bytes` of the body elsewhere, without waiting and without any promise."""
        self._outlet.sample(self.body[:limit_bytes], route, self._label(attempt=1, first_failed_ms=None))

    def _label(self, *, attempt: int, first_failed_ms: int | None) -> Label:
        return Label(
            message_id=self.message_id or "", type=self.type or "", attempt=attempt, first_failed_ms=first_failed_ms
        )

    def _say(self, how: How) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._settle(self._message.delivery_tag, how)

    def _header(self, name: str) -> Any:
        return self._message.headers.get(name)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _death(entry: dict[str, Any]) -> Death:
    return Death(
        queue=_text(entry.get("queue")), reason=_text(entry.get("reason")), count=max(0, _int(entry.get("count")) or 0)
    )
