"""What an operator's replay carries: the original bytes, and in private headers why, how and with which history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from messaging.core.envelope import CODEC_RAW, Envelope
from messaging.core.inbox import Replaying
from messaging.errors import Disposition, MalformedError

__all__ = ["Replay", "Replaying", "read_replay"]

_COUNT_MAX: Final = 1_000_000
REASON_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The content of a replay.

    Attributes:
        original: The sealed bytes that failed.
        reason: The operator's words.
        force: Run even what is done, if policy grants it.
        replays: Which replay of the original this is, from 1.
        attempts: Handler runs before it.
    """

    original: bytes
    reason: str
    force: bool = False
    replays: int = 1
    attempts: int = 0

    def headers(self) -> dict[str, Any]:
        """Return the private headers of the wrapper."""
        return {"reason": self.reason, "force": self.force, "replays": self.replays, "attempts": self.attempts}


def read_replay(envelope: Envelope) -> Replay:
    """Return what an opened replay carries.

    Raises:
        MalformedError: it is none.
    """
    if envelope.codec != CODEC_RAW:
        raise MalformedError("a replay carries raw bytes", disposition=Disposition.CONTENT)
    headers = envelope.headers
    return Replay(
        original=envelope.payload,
        reason=str(headers.get("reason", ""))[:REASON_MAX_CHARS],
        force=headers.get("force") is True,
        replays=_count(headers, "replays", 1),
        attempts=_count(headers, "attempts", 0),
    )


def _count(headers: Mapping[str, Any], name: str, default: int) -> int:
    value = headers.get(name, default)
    return value if type(value) is int and 0 <= value <= _COUNT_MAX else default
