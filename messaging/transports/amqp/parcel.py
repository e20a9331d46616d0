"""One message as it goes out: bytes, where to, and the few properties that the broker may see.

Properties are built here and not by aio-pika's `Message`, which writes a priority of 0 into each: RabbitMQ 4.3 takes an
unset one for 4, and quorum queues there have two priorities.
"""

from collections.abc import Callable
from typing import Any, Final, Self
from uuid import UUID

import aiormq

from messaging.core.sealed import Label, Route
from messaging.core.values import value

__all__ = ["CONTENT_TYPE", "PERSISTENT", "TRANSIENT", "Parcel"]

CONTENT_TYPE: Final = "application/vnd.messaging.sealed"
PERSISTENT: Final = 2
TRANSIENT: Final = 1


@value
class Parcel:
    """One message as it goes out. The same parcel may be sent again: its bytes never change."""

    body: bytes
    route: Route
    label: Label
    message_id: str

    @classmethod
    def of(cls, body: bytes, route: Route, label: Label, *, new_id: Callable[[], UUID]) -> Self:
        """Return the parcel of some bytes. `new_id` names it when the label has no id: a stranger's message."""
        # Returned messages are matched by their id, so there is always one.
        return cls(body=body, route=route, label=label, message_id=label.message_id or new_id().hex)

    @property
    def properties(self) -> aiormq.spec.Basic.Properties:
        """The properties as the client library writes them."""
        route, label = self.route, self.label
        return aiormq.spec.Basic.Properties(
            content_type=CONTENT_TYPE,
            delivery_mode=PERSISTENT if route.persistent else TRANSIENT,
            expiration=None if route.expiration_ms is None else str(max(0, route.expiration_ms)),
            message_id=self.message_id,
            message_type=label.type or None,
            headers=_headers(label) or None,
        )

    @property
    def id(self) -> UUID | None:
        """The message id, when it is one of ours."""
        try:
            return UUID(hex=self.message_id)
        except ValueError:
            return None


def _headers(label: Label) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if label.attempt > 1:
        headers["x-attempt"] = label.attempt
    if label.first_failed_ms is not None:
        headers["x-first-failed"] = label.first_failed_ms
    return headers
