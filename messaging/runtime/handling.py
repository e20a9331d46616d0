"""`Part` and `Handling`: one queue of a service, and what is known of one delivery while it is being handled."""

from enum import Enum

from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.fault import Attempt, Fault
from messaging.core.inbox import Decision
from messaging.errors import ConfigurationError
from messaging.runtime.router import Handler
from messaging.runtime.ways import Way
from messaging.security.verified import Verified
from messaging.stores.base import Reservation
from messaging.transports.base import Delivery

__all__ = ["Handling", "Part"]


class Part(Enum):
    """The queues that a service consumes, and the kinds that each may carry."""

    COMMANDS = ("commands", frozenset({Kind.COMMAND, Kind.REPLAY}))
    EVENTS = ("events", frozenset({Kind.EVENT, Kind.REPLAY}))
    REQUESTS = ("requests", frozenset({Kind.REQUEST}))
    FAULTS = ("faults", frozenset({Kind.FAULT}))

    def __init__(self, word: str, kinds: frozenset[Kind]) -> None:
        self.word = word
        self.kinds = kinds


class Handling:
    """One delivery on its way from the queue to its verdict.

    What is not known yet is the class's, so that a delivery stores only what it comes to be.

    Attributes:
        delivery: What arrived.
        part: The queue it came from.
        home: The queue that replays of it name, when it came from a partition of that.
        attempt: The run that is under way, from 1.
        verified: What was verified: of a replay the original inside it. None as long as nothing may be believed.
        original: The bytes that a burial keeps: of a replay the original inside it.
        reservation: The inbox's lease.
        envelope: The opened message.
        way: What is to be done with it, once it was asked for.
        handler: Who handles it.
        fault: Why it failed.
        failures: The runs of it that failed in this delivery and that no store has been told of.
        reply: Of requests: the encoded answer.
        replayed_by, replay_reason: Of replays.
        replays, earlier_attempts: Of replays: the history that the operator's wrapper tells.
        said: Why it failed, in words that logs may show: those of a foreign exception may hold values of the payload.
        is_forged: Nothing of it may be believed.
        is_buried: Its dead letter is confirmed.
    """

    attempt: int = 1
    verified: Verified | None = None
    reservation: Reservation | None = None
    envelope: Envelope | None = None
    way: Way | None = None
    handler: Handler | None = None
    fault: Fault | None = None
    failures: tuple[Attempt, ...] = ()
    reply: bytes | None = None
    reply_codec: int = CODEC_MSGPACK
    replayed_by: str | None = None
    replay_reason: str | None = None
    replays: int = 0
    earlier_attempts: int = 0
    is_forged: bool = False
    is_buried: bool = False
    said: str | None = None

    def __init__(self, delivery: Delivery, part: Part, *, home: str | None = None) -> None:
        self.delivery = delivery
        self.part = part
        self.home = home
        self.original = delivery.body

    @property
    def holds_lease(self) -> bool:
        """Whether the inbox let it run."""
        return self.reservation is not None and self.reservation.decision is Decision.RUN

    @property
    def lease(self) -> Reservation:
        """The inbox's lease of what runs.

        Raises:
            ConfigurationError: there is none.
        """
        if self.reservation is None:
            raise ConfigurationError("a delivery runs only with the inbox's lease")
        return self.reservation

    @property
    def is_mislabelled(self) -> bool:
        """Whether the unsigned properties beside the message contradict it: they decide nothing, but are counted."""
        seen, delivery = self.verified, self.delivery
        if seen is None or seen.body != delivery.body:
            return False
        label, claimed_id = delivery.type, delivery.message_id
        # Bytes are compared as text: an id need not become an object to be looked at.
        return (label is not None and label != seen.type) or (
            claimed_id is not None and claimed_id != seen.header.mid.hex()
        )

    def described(self) -> dict[str, object]:
        """Return what logs may say of it: nothing that was not verified."""
        if self.verified is None:
            return {"queue": self.delivery.queue}
        seen = self.verified
        words: dict[str, object] = {
            "queue": self.delivery.queue,
            "kind": seen.kind.word,
            "message_name": seen.name,
            "message_id": str(seen.id),
            "sender": seen.sender,
            "correlation_id": str(seen.correlation_id),
            "attempt": self.attempt,
        }
        if self.replayed_by is not None:
            words["replayed_by"] = self.replayed_by
        return words
