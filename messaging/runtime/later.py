"""`Later`: where a message waits for its time. With a store it is a row; without one it is told what is missing."""

from typing import Protocol
from uuid import UUID

from messaging.core.schedule import Cancellation, Draft
from messaging.errors import ConfigurationError

__all__ = ["Later", "Nowhere"]


class Later(Protocol):
    """Keeps messages until their time."""

    async def put(self, draft: Draft, *, due_ms: int, timeout_s: float) -> None:
        """Keep a message, and return once that is certain.

        Args:
            draft: The message.
            due_ms: When it is to be sent, Unix milliseconds.
            timeout_s: Deadline, seconds.

        Raises:
            PublishNotConfirmedError: it is not certain; carries the id for a repetition.
            ConfigurationError: it cannot be kept; names the remedy.
        """

    async def cancel(self, message_id: UUID, *, timeout_s: float) -> Cancellation:
        """Take a message back that waits.

        Raises:
            ConfigurationError: what waits here cannot be taken back.
        """


class Nowhere:
    """No place for messages to wait: a service that has no store."""

    async def put(self, draft: Draft, *, due_ms: int, timeout_s: float) -> None:
        """Refuse; see `Later`."""
        raise ConfigurationError(
            f"{draft.envelope.type} cannot wait for its time: deliver_at= needs a store, such as "
            "Service(…, store=SqlStore(engine))"
        )

    async def cancel(self, message_id: UUID, *, timeout_s: float) -> Cancellation:
        """Refuse; see `Later`."""
        raise ConfigurationError(_NO_STORE)


_NO_STORE = (
    "only a message that waits in a store can be cancelled, and this service has none: "
    "Service(…, store=SqlStore(engine))"
)
