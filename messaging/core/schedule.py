"""Schedules: when a message is to be sent, and the message while it waits for that, not yet sealed.

A time must have a zone: `datetime.now()` without one means something else on each machine. A time that has passed
means now. What waits keeps its payload, its id and its place in the chain of causes; who may read it, with which keys
and from when its life counts is decided when it is sealed, at its time.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

import msgpack

from messaging.core.envelope import Envelope, Kind
from messaging.errors import ConfigurationError, InvalidPayloadError

__all__ = ["HORIZON_S", "Cancellation", "Draft", "due_ms"]

# Ten years: what is beyond is milliseconds taken for seconds rather than a plan.
HORIZON_S: Final = 3_653 * 24 * 3_600
_LAYOUT: Final = 1


class Cancellation(StrEnum):
    """What became of a wish to cancel a scheduled message; compares with plain strings.

    `CANCELLED`: it is not sent, now or when it was cancelled before. `SENT`: too late, it was sealed and sent.
    `UNKNOWN`: this service has no such message on its schedule, or it ended more than seven days ago.
    """

    CANCELLED = "cancelled"
    SENT = "sent"
    UNKNOWN = "unknown"


def due_ms(deliver_at: datetime | None, *, now_ms: int) -> int | None:
    """Return when a message is to be sent, Unix milliseconds, or None for now.

    Args:
        deliver_at: With a zone; None and what has passed are now.
        now_ms: Unix milliseconds.

    Raises:
        ConfigurationError: no zone, or more than ten years from now.
    """
    if deliver_at is None:
        return None
    if deliver_at.utcoffset() is None:
        raise ConfigurationError(
            f"deliver_at={deliver_at.isoformat()} has no time zone: say which, such as "
            "datetime.now(UTC) + timedelta(hours=1)"
        )
    # Upwards: a message is never sent before its time.
    at_ms = -int(-deliver_at.timestamp() * 1000 // 1)
    if at_ms > now_ms + HORIZON_S * 1000:
        raise ConfigurationError(f"deliver_at={deliver_at.isoformat()} is more than ten years from now")
    return at_ms if at_ms > now_ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A command or event that is not sealed yet.

    Attributes:
        envelope: The message; its times are those of its writing.
    """

    envelope: Envelope

    def pack(self) -> bytes:
        """Return it as bytes. They hold the payload in clear: they belong where the business rows are."""
        envelope = self.envelope
        packed: bytes = msgpack.packb(
            [
                _LAYOUT,
                envelope.id.bytes,
                envelope.kind.value,
                envelope.name,
                envelope.version,
                self.life_ms,
                envelope.codec,
                envelope.payload,
                _bytes_of(envelope.correlation_id),
                _bytes_of(envelope.causation_id),
                envelope.traceparent,
                dict(envelope.headers),
                envelope.slot,
            ],
            use_bin_type=True,
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes, *, sender: str) -> Self:
        """Return what `pack` made.

        Args:
            packed: The bytes.
            sender: The service whose schedule they were on.

        Raises:
            InvalidPayloadError: they are something else.
        """
        try:
            plain: Any = msgpack.unpackb(packed, raw=False, use_list=True)
            layout, mid, kind, name, version, life_ms, codec, payload, correlation, cause, trace, headers, *rest = plain
            first = Envelope.first(
                id=UUID(bytes=mid),
                kind=Kind(kind),
                name=name,
                version=version,
                sender=sender,
                issued_at_ms=0,
                expires_at_ms=life_ms,
                payload=payload,
                codec=codec,
            )
            envelope = replace(
                first,
                correlation_id=_id_of(correlation),
                causation_id=_id_of(cause),
                traceparent=trace,
                headers=headers,
                # Rows of before there were keys have none.
                slot=rest[0] if rest else None,
            )
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise InvalidPayloadError(f"the row holds no scheduled message ({type(error).__name__})") from None
        if layout != _LAYOUT:
            raise InvalidPayloadError(
                f"the row has layout {layout!r}, this version knows {_LAYOUT}: update this program"
            )
        return cls(envelope=envelope)

    @property
    def life_ms(self) -> int:
        """How long it may wait to be handled once it is sent, milliseconds."""
        return self.envelope.expires_at_ms - self.envelope.issued_at_ms

    def issued(self, now_ms: int, *, life_ms: int | None = None) -> Envelope:
        """Return the message as issued at a time; its life begins there.

        Args:
            now_ms: Unix milliseconds.
            life_ms: How long it lives, milliseconds; None: its own.
        """
        life_ms = self.life_ms if life_ms is None else life_ms
        return replace(self.envelope, issued_at_ms=now_ms, expires_at_ms=now_ms + life_ms)


def _bytes_of(value: UUID | None) -> bytes | None:
    return None if value is None else value.bytes


def _id_of(value: bytes | None) -> UUID | None:
    return None if value is None else UUID(bytes=value)
