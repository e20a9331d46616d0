"""The values that several adapters share: sealed bytes, where they go, and what the broker may see beside them."""

from typing import NewType

from messaging.core.values import value

__all__ = ["Label", "Route", "Sealed"]

Sealed = NewType("Sealed", bytes)
"""The bytes of one sealed message (docs/spec.md). Only `security.seal` makes them."""


@value
class Route:
    """Where a message goes.

    Attributes:
        exchange: Name of the exchange.
        routing_key: Routing key, at most 255 bytes.
        mandatory: Whether a message that reaches no queue is an error.
        persistent: Whether the broker keeps it on disk.
        expiration_ms: Life in the queue, milliseconds; None means unlimited.
    """

    exchange: str
    routing_key: str
    mandatory: bool = True
    persistent: bool = True
    expiration_ms: int | None = None


@value
class Label:
    """What is written beside the sealed bytes, in clear and unsigned: for people and for counting, never for trust.

    Attributes:
        message_id: Hex of the message id.
        type: Wire type, such as `orders.place_order/1`.
        attempt: Which attempt the delivery will be, from 1; travels as `x-attempt` when above 1.
        first_failed_ms: Unix milliseconds of the first failure; travels as `x-first-failed`.
    """

    message_id: str
    type: str
    attempt: int = 1
    first_failed_ms: int | None = None
