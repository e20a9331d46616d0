"""The port of the inbox: which messages ran, are running or failed (docs/trust.md, "Duplicates and replays").

A row is keyed by (my service, sender, message id) and remembers the leaf it was made for: other bytes never run under a
recorded id. A reservation carries a token; what is done with a token that is no longer the row's changes nothing, so a
process that was stopped and wakes up late does no harm.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from messaging.core.inbox import Decision, Replaying, RowState
from messaging.core.schedule import Cancellation
from messaging.core.sealed import Label, Route, Sealed
from messaging.core.values import value
from messaging.errors import MessagingError

__all__ = [
    "Claimed",
    "Counting",
    "GroupUndoneError",
    "Grouping",
    "HandingOver",
    "Inbox",
    "InboxKey",
    "Outbox",
    "Outgoing",
    "Released",
    "Reservation",
    "Schedule",
    "Scheduled",
    "Sealing",
    "SeenBundle",
    "SeenBundles",
    "Store",
    "StoreUnavailableError",
    "Taker",
    "Unit",
    "Waiting",
]


class StoreUnavailableError(MessagingError):
    """The store does not answer: local trouble, deliveries are held until it does."""

    transient = True


class GroupUndoneError(MessagingError):
    """Another delivery of the same transaction failed, or its commit: this one must run again, alone."""

    transient = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """How deliveries of a handler share transactions.

    Attributes:
        name: Of the handler: those of another never join.
        size: At most so many in one transaction.
        wait_s: At most so long is waited for them, seconds.
    """

    name: str
    size: int
    wait_s: float


@value
class Outgoing:
    """A sealed message on its way out.

    Attributes:
        partition_key: What leaves in the order of its writing; None: it has no order.
    """

    sealed: Sealed
    route: Route
    label: Label
    partition_key: str | None = None


# Begins to seal; what is begun in one turn of the event loop shares a signature.
Sealing = Callable[[], Awaitable[Outgoing]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A row of the outbox that this relay holds: what was staged, as bytes, and how often it was tried."""

    id: int
    attempts: int
    body: bytes
    route: Route
    label: Label
    partition_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A message for later: what is kept until its time.

    Attributes:
        message_id, message_type: Say in clear what it is.
        deliver_at_ms: When it is to be sent, Unix milliseconds.
        draft: The packed draft; it holds the payload in clear.
    """

    message_id: UUID
    message_type: str
    deliver_at_ms: int
    draft: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A scheduled message as a list shows it.

    Attributes:
        message_id, message_type: What it is.
        deliver_at_ms, created_at_ms: When it is to be sent and when that was asked for, Unix milliseconds.
        attempts, problem: How often it could not be sealed though it was due, and why the last time.
    """

    message_id: UUID
    message_type: str
    deliver_at_ms: int
    created_at_ms: int
    attempts: int
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What came of a look at what was due.

    Attributes:
        sent: Ids of what was moved to the outbox.
        failed: Ids of what could not be sealed now, with the reason; it is tried again.
    """

    sent: Sequence[UUID] = ()
    failed: Sequence[tuple[UUID, str]] = ()


class Unit(Protocol):
    """One handler's transaction: inbox row, business rows and outgoing messages are committed as one."""

    def find(self, kind: type) -> object | None:
        """Return what handlers write their own rows through, by its class; None if the class is another."""

    async def stage(self, message: Outgoing | Sealing) -> None:
        """Write a message into the outbox, or seal it at the transaction's end; it leaves once that is committed."""

    async def schedule(self, scheduled: Scheduled) -> None:
        """Write a message for later; see `Schedule.add`."""

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Cancel a scheduled message, if the transaction is committed; see `Schedule.cancel`."""


class InboxKey(NamedTuple):
    """Identifies one message for one service; a tuple, because every delivery makes one and looks it up."""

    service: str
    sender: str
    message_id: UUID


@value
class Reservation:
    """What the inbox answered.

    Attributes:
        key: The row.
        decision: Whether to run.
        leaf: The leaf that was verified, 32 bytes.
        expires_at_ms: When the message can no longer run.
        token: Proof of the lease when the decision is to run.
        outer, outer_leaf: Of replays: the row of the operator's wrapper, which ends together with this one.
        is_forced: Of replays: whether it runs even what is done.
        reply: Of a request that is done: the payload of the answer given then, if it was kept.
        unit: The handler's transaction, of stores that have transactions.
    """

    key: InboxKey
    decision: Decision
    leaf: bytes = b""
    expires_at_ms: int = 0
    token: int | None = None
    outer: InboxKey | None = None
    outer_leaf: bytes = b""
    is_forced: bool = False
    reply: bytes | None = field(default=None, repr=False)
    unit: Unit | None = None


class Inbox(Protocol):
    """Remembers messages; see the state table in `core.inbox`."""

    async def state(self, key: InboxKey, *, leaf: bytes) -> RowState:
        """Return the row's state as these bytes see it: ABSENT when the row was made for another leaf."""

    async def reserve(
        self, key: InboxKey, *, leaf: bytes, expires_at_ms: int, lease_s: float, grouping: Grouping | None = None
    ) -> Reservation:
        """Take a lease for a delivery if it may run.

        Args:
            key: The message.
            leaf: 32 bytes, the leaf that was verified.
            expires_at_ms: When the message can no longer run, Unix milliseconds.
            lease_s: Seconds after which a crashed holder is taken over.
            grouping: Whether and how it may share a transaction, where there are any; then it is its turn on return.
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
        """Record that the handler ran; returns whether the lease was still held. `reply` answers a repeated request.

        Raises:
            GroupUndoneError: the transaction that it shared is undone; `renew` and run again.
        """

    async def renew(self, reservation: Reservation) -> Reservation:
        """Undo what a failed run wrote and go on under the same lease, for another run in this process."""

    async def undo(self, reservation: Reservation) -> None:
        """Undo what a failed run wrote; what becomes of the message is said by `release` or `fail`."""

    async def fail(self, reservation: Reservation) -> bool:
        """Record that the message was buried: raw bytes never run again."""

    async def release(self, reservation: Reservation) -> bool:
        """Give the lease back: the message will come again."""


class Outbox(Protocol):
    """The messages of one service that were committed and wait to leave."""

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[Claimed]:
        """Take the oldest rows that are due and free, for `lease_s` seconds.

        Of rows with one partition key those in front, without a gap, or none: what is behind a row that waits for its
        next try, or that another relay holds, waits too. What is parked holds nobody up.
        """

    async def release(self, ids: Sequence[int]) -> None:
        """Give rows back that were not tried."""

    async def delete(self, rows: Sequence[Claimed]) -> None:
        """Remove rows whose publish is confirmed; those that somebody else removed meanwhile are fine."""

    async def postpone(self, row: Claimed, *, delay_s: float, reason: str) -> None:
        """Give a row back for a later try."""

    async def park(self, row: Claimed, *, reason: str) -> None:
        """Set a row aside that can never leave: visible, and in nobody's way."""

    async def depth(self) -> tuple[int, int]:
        """Return how many rows wait and how many are parked."""


class Taker(Protocol):
    """Who publishes what was committed in the same process, without having to look for it."""

    @property
    def has_room(self) -> bool:
        """Whether it takes more; what it does not take waits for a claim."""

    def take(self, rows: Sequence[Claimed], *, leaves_more: bool) -> None:
        """Take rows that were committed leased to it; `leaves_more`: others of that transaction are to be claimed."""


@runtime_checkable
class HandingOver(Protocol):
    """An outbox whose rows may be handed to a relay of the same process as soon as they are committed.

    They are written with a lease, so no other relay takes them; when the process dies, the lease ends and one does.
    Rows with a partition key are never handed over: who is first of a key is for `claim` to say.
    """

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        """Lease what is written from now on to `owner` and hand it over; one taker at a time, the last one."""

    def keep(self, owner: str) -> None:
        """Hand nothing over to this owner any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBundle:
    """A trust bundle that was in force.

    Attributes:
        version: Its version.
        digest: Digest of its content, 32 bytes.
    """

    version: int
    digest: bytes


class SeenBundles(Protocol):
    """The newest trust bundle that one service has ever used, so that a restart cannot be given an older one."""

    async def newest(self, realm: str) -> SeenBundle | None:
        """Return the newest one of a realm; None when the service never used any."""

    async def record(self, realm: str, seen: SeenBundle) -> None:
        """Remember a bundle, unless one of that version or a newer one is remembered already."""


class Schedule(Protocol):
    """The messages of one service that wait for their time. Times are compared with the store's own clock.

    `now_ms` stands in for that clock where a test has one of its own.
    """

    async def add(self, scheduled: Scheduled) -> None:
        """Keep a message until its time; the same one for the same time again changes nothing.

        Raises:
            ConfigurationError: its id is on the schedule for another time, or was cancelled.
        """

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Take a message off the schedule for good, unless it was released; waits for a release under way."""

    async def release(
        self, seal: Callable[[bytes], Awaitable[Outgoing | None]], *, limit: int, now_ms: int | None = None
    ) -> Released:
        """Move what is due to the outbox, sealed, in one transaction; rows that somebody else holds are left to them.

        Args:
            seal: From draft to sealed message; None when nobody is to get it. What it raises is noted at the row, which
                is tried again later.
            limit: How many at most.
            now_ms: See the class.
        """

    async def next_due_s(self, *, now_ms: int | None = None) -> float | None:
        """Return in how many seconds the next one is due, negative when it is late, or None when nothing waits."""

    async def waiting(self, *, limit: int) -> Sequence[Waiting]:
        """Return what waits, the next due first."""


@runtime_checkable
class Counting(Protocol):
    """A store that can tell who fills its inbox."""

    async def inbox_rows(self, service: str, *, within_s: float) -> Mapping[str, int]:
        """Return how many rows each sender has added in the last `within_s` seconds, most first.

        Raises:
            StoreUnavailableError: the database does not answer.
        """


@runtime_checkable
class Store(Protocol):
    """A durable inbox with its outboxes."""

    @property
    def inbox(self) -> Inbox:
        """The inbox."""

    @property
    def offers(self) -> tuple[type, ...]:
        """Classes of what a handler's transaction gives."""

    def outbox(self, service: str) -> Outbox:
        """Return the outbox of a service."""

    def seen_bundles(self, service: str) -> SeenBundles:
        """Return what a service remembers of the trust bundles that it used."""

    def schedule(self, service: str) -> Schedule:
        """Return the schedule of a service."""

    async def purge(self) -> int:
        """Remove rows whose message can no longer run; returns how many."""
