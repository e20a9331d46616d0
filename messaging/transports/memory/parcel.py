"""What the memory broker keeps: a parcel is one published message, an entry is one copy of it in one queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from messaging.core.topology import SINGLE_ACTIVE, Argument
from messaging.core.values import value
from messaging.errors import TopologyConflictError
from messaging.transports.base import Death

__all__ = ["Entry", "Limits", "Parcel"]


@value
class Parcel:
    """One published message with its properties.

    Attributes:
        body: The bytes as published.
        exchange: Exchange of this hop.
        routing_key: Routing key of this hop.
        message_id: AMQP property.
        type: AMQP property.
        headers: AMQP headers.
        expiration_ms: Life in a queue, milliseconds, from its arrival there.
        deaths: Why it left queues before, the latest first.
    """

    body: bytes
    exchange: str
    routing_key: str
    message_id: str | None = None
    type: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    expiration_ms: int | None = None
    deaths: tuple[Death, ...] = ()

    def buried(self, queue: str, reason: str, *, exchange: str, routing_key: str | None) -> "Parcel":
        """Return the dead letter: the same message for another exchange, with one more death and no expiration.

        Args:
            queue: The queue it leaves.
            reason: `expired`, `maxlen`, `delivery_limit` or `rejected`.
            exchange: Where it goes.
            routing_key: A new key; None keeps the key of the hop before.
        """
        known = next((death for death in self.deaths if (death.queue, death.reason) == (queue, reason)), None)
        death = Death(queue=queue, reason=reason, count=1 if known is None else known.count + 1)
        return replace(
            self,
            exchange=exchange,
            routing_key=self.routing_key if routing_key is None else routing_key,
            expiration_ms=None,
            deaths=(death, *(other for other in self.deaths if other is not known)),
        )

    def is_cycle(self, queue: str) -> bool:
        """Tell whether dying brought it back to a queue where it died before without anybody rejecting it.

        The broker drops such a message, for nothing would ever end its round.
        """
        names = [death.queue for death in self.deaths]
        if queue not in names:
            return False
        return all(death.reason != "rejected" for death in self.deaths[: names.index(queue) + 1])


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One copy of a parcel in one queue.

    Attributes:
        parcel: The message.
        position: Its place in the queue's order.
        expires_at_ms: When its life in this queue ends, by the broker's clock.
        delivery_count: How often it came back unsettled or rejected; counted by quorum queues only.
        redelivered: Whether it was delivered before.
    """

    parcel: Parcel
    position: int
    expires_at_ms: int | None
    delivery_count: int = 0
    redelivered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The arguments of a queue, read once.

    Attributes:
        is_quorum: Whether it counts deliveries and knows a delivery limit.
        delivery_limit: How often a message may come back before it is given up; None is never.
        ttl_ms: Life of every message in the queue.
        expires_ms: Life of the queue itself while nobody uses it.
        length_max: Bound of ready messages.
        bytes_max: Bound of their bodies together.
        is_rejecting: Whether a full queue refuses the newest instead of dropping the oldest.
        dead_letter_exchange: Where a message goes that is given up.
        dead_letter_key: Its routing key there; None keeps the old one.
        is_at_least_once: Whether a dead letter stays here until it arrived there.
        is_single_active: Whether one consumer is fed at a time, and the others stand by.
    """

    is_quorum: bool
    delivery_limit: int | None
    ttl_ms: int | None
    expires_ms: int | None
    length_max: int | None
    bytes_max: int | None
    is_rejecting: bool
    dead_letter_exchange: str | None
    dead_letter_key: str | None
    is_at_least_once: bool
    is_single_active: bool

    @classmethod
    def of(cls, queue: str, arguments: Mapping[str, Argument]) -> "Limits":
        """Read the arguments of a declaration; unknown ones mean nothing, as to RabbitMQ.

        Raises:
            TopologyConflictError: A value that the broker refuses, or that this one does not know.
        """
        kind = _choice(queue, arguments, "x-queue-type", ("classic", "quorum", "stream"))
        overflow = _choice(queue, arguments, "x-overflow", ("drop-head", "reject-publish"))
        strategy = _choice(queue, arguments, "x-dead-letter-strategy", ("at-most-once", "at-least-once"))
        is_quorum, is_rejecting = kind == "quorum", overflow == "reject-publish"
        return cls(
            is_quorum=is_quorum,
            delivery_limit=_number(queue, arguments, "x-delivery-limit") if is_quorum else None,
            ttl_ms=_number(queue, arguments, "x-message-ttl"),
            expires_ms=_number(queue, arguments, "x-expires", least=1),
            length_max=_number(queue, arguments, "x-max-length"),
            bytes_max=_number(queue, arguments, "x-max-length-bytes"),
            is_rejecting=is_rejecting,
            dead_letter_exchange=_text(queue, arguments, "x-dead-letter-exchange"),
            dead_letter_key=_text(queue, arguments, "x-dead-letter-routing-key"),
            # The broker falls back to at-most-once where dropping the head could lose what waits to be buried.
            is_at_least_once=is_quorum and is_rejecting and strategy == "at-least-once",
            is_single_active=_truth(queue, arguments, SINGLE_ACTIVE),
        )


def _number(queue: str, arguments: Mapping[str, Argument], name: str, *, least: int = 0) -> int | None:
    value = arguments.get(name)
    if value is None or (type(value) is int and value >= least):
        return value
    raise _refused(queue, name, value, f"an integer of at least {least}")


def _truth(queue: str, arguments: Mapping[str, Argument], name: str) -> bool:
    value = arguments.get(name, False)
    if isinstance(value, bool):
        return value
    raise _refused(queue, name, value, "true or false")


def _text(queue: str, arguments: Mapping[str, Argument], name: str) -> str | None:
    value = arguments.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _refused(queue, name, value, "a name")


def _choice(queue: str, arguments: Mapping[str, Argument], name: str, choices: tuple[str, ...]) -> str:
    """Return the argument; the first choice is the default."""
    value = arguments.get(name, choices[0])
    if value in choices:
        return str(value)
    raise _refused(queue, name, value, " or ".join(choices))


def _refused(queue: str, name: str, value: Argument, wanted: str) -> TopologyConflictError:
    return TopologyConflictError(f"queue {queue!r}: argument {name} cannot be {value!r}; use {wanted}")
