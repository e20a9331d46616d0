"""`Later`: where a message waits for its time: in the store of its sender, or at the broker in delay levels."""

from typing import Protocol
from uuid import UUID

from messaging.core.schedule import Cancellation, Draft

__all__ = ["Later"]


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
