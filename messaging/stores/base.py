"""The port of the inbox: which messages ran, are running or failed (docs/trust.md, "Duplicates and replays").

A row is keyed by (my service, sender, message id) and remembers the leaf it was made for: other bytes never run under a
recorded id. A reservation carries a token; what is done with a token that is no longer the row's changes nothing, so a
process that was stopped and wakes up late does no harm.
"""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from messaging.core.inbox import Decision, Replaying, RowState

__all__ = ["Inbox", "InboxKey", "Reservation"]


@dataclass(frozen=True, slots=True)
class InboxKey:
    """Identifies one message for one service."""

    service: str
    sender: str
    message_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What the inbox answered.

    Attributes:
        key: The row.
        decision: Whether to run.
        token: Proof of the lease when the decision is to run.
        outer: Of replays: the row of the operator's wrapper, which ends together with this one.
        reply: Of a request that is done: the payload of the answer given then, if it was kept.
    """

    key: InboxKey
    decision: Decision
    token: int | None = None
    outer: InboxKey | None = None
    reply: bytes | None = None


class Inbox(Protocol):
    """Remembers messages; see the state table in `core.inbox`."""

    async def state(self, key: InboxKey, *, leaf: bytes) -> RowState:
        """Return the row's state as these bytes see it: ABSENT when the row was made for another leaf."""

    async def reserve(self, key: InboxKey, *, leaf: bytes, expires_at_ms: int, lease_s: float) -> Reservation:
        """Take a lease for a delivery if it may run.

        Args:
            key: The message.
            leaf: 32 bytes, the leaf that was verified.
            expires_at_ms: When the message can no longer run, Unix milliseconds.
            lease_s: Seconds after which a crashed holder is taken over.
        """

    async def reserve_replay(
        self,
        key: InboxKey,
        *,
        leaf: bytes,
        outer: InboxKey,
        outer_leaf: bytes,
        replaying: Replaying,
        expires_at_ms: int,
        lease_s: float,
    ) -> Reservation:
        """Take a lease for an operator's replay: the original's row and the wrapper's move together."""

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        """Record that the handler ran; returns whether the lease was still held. `reply` answers a repeated request."""

    async def fail(self, reservation: Reservation) -> bool:
        """Record that the message was buried: raw bytes never run again."""

    async def release(self, reservation: Reservation) -> bool:
        """Give the lease back: the message will come again."""
