"""`Envelope`: one message with who, when and why. Immutable; what `security` seals and what it opens again."""

from collections.abc import Mapping
from dataclasses import field, replace
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

from messaging.core.names import owner_of, type_of
from messaging.core.values import value

__all__ = ["CODEC_JSON", "CODEC_MSGPACK", "CODEC_RAW", "Envelope", "Kind"]

CODEC_MSGPACK: Final = 0
CODEC_JSON: Final = 1
CODEC_PROTOBUF: Final = 2
CODEC_RAW: Final = 3


class Kind(IntEnum):
    """What a sealed message is (docs/spec.md, "Kinds"); the numbers are on the wire."""

    COMMAND = 1
    EVENT = 2
    REQUEST = 3
    REPLY = 4
    FAULT = 5
    REPLAY = 6

    # Kinds are part of keys that every message looks up; that of `Enum` is written in Python and hashes the name.
    __hash__ = int.__hash__

    @property
    def word(self) -> str:
        """The kind in lower case, as policy rules and logs write it."""
        return self.name.lower()


@value
class Envelope:
    """A message with who, when and why.

    Attributes:
        id: Message id; a UUIDv7, but for faults, whose id is derived from what failed.
        kind: What it is.
        name: Message name, such as `orders.place_order`; of replies, faults and replays that of the message concerned.
        version: Contract version, from 1.
        sender: Service or operator that signs it.
        audience: Who it is for: a service, or `event:<name>`.
        issued_at_ms, expires_at_ms: Unix milliseconds.
        correlation_id: Shared by everything that follows from one first act; of a reply the id of its request.
        causation_id: Id of the message whose handling sent this one.
        bind: Of replies, faults and replays: leaf (32 bytes) of the message answered, buried or replayed.
        reply_to: Of requests: routing key of the reply queue.
        traceparent: W3C trace context of the sending step.
        headers: Private headers, encrypted with the payload.
        codec: How the payload is encoded (`CODEC_…`).
        payload: Encoded payload.
        bundle_version: Version of the sender's trust bundle.
        slot: Of commands with a key, and of their replays: where it stands among the slots (`core.partition`).
    """

    id: UUID
    kind: Kind
    name: str
    version: int
    sender: str
    audience: str
    issued_at_ms: int
    expires_at_ms: int
    payload: bytes = field(repr=False)
    codec: int = CODEC_MSGPACK
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    bind: bytes | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    bundle_version: int | None = None
    slot: int | None = None

    @property
    def type(self) -> str:
        """Wire type, such as `orders.place_order/1`."""
        return type_of(self.name, self.version)

    @classmethod
    def first(
        cls,
        *,
        id: UUID,
        kind: Kind,
        name: str,
        version: int,
        sender: str,
        issued_at_ms: int,
        expires_at_ms: int,
        payload: bytes,
        codec: int = CODEC_MSGPACK,
        reply_to: str | None = None,
    ) -> "Envelope":
        """Return the envelope of a message that nothing caused: it starts its own correlation."""
        audience, correlation_id = audience_of(kind, name), id
        # By position, which takes a third of the time: one for every message.
        return cls(
            id, kind, name, version, sender, audience, issued_at_ms, expires_at_ms, payload, codec, correlation_id,
            reply_to=reply_to,
        )  # fmt: skip

    def caused_by(self, cause: "Envelope") -> "Envelope":
        """Return a copy that carries the correlation of `cause` and names it as the cause."""
        correlation = cause.id if cause.correlation_id is None else cause.correlation_id
        return replace(self, correlation_id=correlation, causation_id=cause.id)


def audience_of(kind: Kind, name: str) -> str:
    """Return whom a command, event or request of this name is for (docs/spec.md, table of kinds)."""
    return f"event:{name}" if kind is Kind.EVENT else owner_of(name)
