"""`Fault`: what failed, where and why. Data, never a live exception: it is sealed, stored, grouped and decided upon.

Redaction: a fault never holds payload values. Texts of exceptions are the application's own words and are cut to a
budget; the traceback holds places in code, no values. The whole stays below 16 KiB: the trace is cut from the middle,
never at the cost of the error and its reason (docs/failure.md).
"""

import hashlib
import traceback
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePath
from types import TracebackType
from typing import Any, ClassVar, Final, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messaging.core.codec import describe, pack_plain, plain_of
from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, Envelope
from messaging.errors import InvalidPayloadError, MessagingError, RemoteFailure, RetryLater

__all__ = ["Attempt", "Cause", "Fault"]

REASON_MAX_CHARS: Final = 1_000
CAUSE_MAX_CHARS: Final = 200
TRACE_MAX_BYTES: Final = 10_000
CHAIN_MAX: Final = 8
HISTORY_MAX: Final = 32
FAULT_MAX_BYTES: Final = 16 * 1024
_TRACE_MIN_BYTES: Final = 200
_CUT: Final = "\n… cut …\n"


class Cause(BaseModel):
    """One link of the chain of causes: the error's type and its words."""

    model_config = ConfigDict(frozen=True)

    error: str = Field(max_length=200)
    reason: str = Field(max_length=REASON_MAX_CHARS)


class Attempt(BaseModel):
    """One run of a handler that failed: when, Unix milliseconds, and with which error."""

    model_config = ConfigDict(frozen=True)

    at_ms: int
    error: str = Field(max_length=200)


class Fault(BaseModel):
    """Why handling a message failed.

    Attributes:
        error: Registered name of a domain failure, or the qualified class of the exception.
        reason: Its words.
        fields: Fields of a declared domain failure.
        permanent: Whether a repetition is known to be useless.
        retry_after_s: The handler's wish, seconds.
        chain: Causes, nearest first.
        trace: Where it happened, frames only.
        service, instance, host, service_version, handler: Who failed.
        message_name, message_version, message_id: What failed.
        attempts: Handler runs so far, all hops counted.
        history: The single runs, oldest first, at most the last 32; only where a durable store remembers them.
        replays: How often an operator replayed it.
        first_failed_at_ms, last_failed_at_ms: Unix milliseconds; the first is a hint from an unsigned header.
        fingerprint: Same type and place give the same 16 hex digits, over restarts.
        traceparent: Trace context of the failing step.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: ClassVar[int] = 1

    error: str = Field(max_length=200)
    reason: str = Field(max_length=REASON_MAX_CHARS)
    fields: Mapping[str, Any] = Field(default_factory=dict)
    permanent: bool = False
    retry_after_s: float | None = None
    chain: tuple[Cause, ...] = Field(default=(), max_length=CHAIN_MAX)
    trace: str = Field(default="", max_length=2 * TRACE_MAX_BYTES)
    service: str = ""
    instance: str = ""
    host: str = ""
    service_version: str = ""
    handler: str = ""
    message_name: str = ""
    message_version: int = 1
    message_id: str = ""
    attempts: int = Field(default=1, ge=0)
    history: tuple[Attempt, ...] = Field(default=(), max_length=HISTORY_MAX)
    replays: int = Field(default=0, ge=0)
    first_failed_at_ms: int | None = None
    last_failed_at_ms: int | None = None
    fingerprint: str = ""
    traceparent: str | None = None

    @classmethod
    def of(cls, error: BaseException, envelope: Envelope | None = None, *, permanent: bool | None = None) -> Self:
        """Return the fault of an exception.

        Args:
            error: What was raised.
            envelope: The message being handled, where it could be read.
            permanent: What the handler's retry policy says of this class; None leaves it to the class itself.
        """
        return cls(
            error=_name_of(error)[:200],
            reason=_reason_of(error)[:REASON_MAX_CHARS],
            fields=_fields_of(error),
            permanent=_is_permanent(error) if permanent is None else permanent,
            retry_after_s=error.delay_s if isinstance(error, RetryLater) else None,
            chain=_chain_of(error),
            trace=_trace_of(error.__traceback__),
            message_name="" if envelope is None else envelope.name,
            message_version=1 if envelope is None else envelope.version,
            message_id="" if envelope is None else str(envelope.id),
            fingerprint=_fingerprint_of(error),
            traceparent=None if envelope is None else envelope.traceparent,
        )

    def marked(self, **changes: Any) -> Self:
        """Return a copy with who, where and how often filled in."""
        return self.model_copy(update=changes)

    def to_map(self) -> dict[str, Any]:
        """Return plain values for the wire, with the format's number, within the budget of 16 KiB."""
        plain: dict[str, Any] = {"format": self.format, **self.model_dump(exclude_defaults=True)}
        trace = plain.pop("trace", "")
        for dispensable in ("fields", "chain", "history"):
            if _size_bytes(plain) <= FAULT_MAX_BYTES:
                break
            plain.pop(dispensable, None)
        # 16: the key and the length that the trace brings with it.
        room = FAULT_MAX_BYTES - _size_bytes(plain) - 16
        if trace and room >= _TRACE_MIN_BYTES:
            plain["trace"] = _cut_from_the_middle(trace, room)
        return plain

    @classmethod
    def from_map(cls, plain: object) -> Self:
        """Return the fault that plain values hold; unknown entries are ignored.

        Raises:
            InvalidPayloadError: they do not hold one.
        """
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise InvalidPayloadError(f"no valid fault: {describe(error)}") from None

    def public(self) -> Self:
        """Return a copy without the insides of the failing service: what a caller may see."""
        return self.model_copy(update={"trace": "", "host": "", "instance": "", "history": ()})


def _name_of(error: BaseException) -> str:
    if isinstance(error, RemoteFailure):
        return error.failure_name
    kind = type(error)
    return kind.__qualname__ if kind.__module__ in ("builtins", "messaging.errors") else _qualified(kind)


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _reason_of(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return describe(error)
    # Not `str(error)`: an exception may fail to say its own words, and a fault must come of it all the same.
    words = str(traceback.TracebackException(type(error), error, None, compact=True))
    return words.encode(errors="replace").decode() or type(error).__name__


def _fields_of(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, RemoteFailure):
        return {}
    try:
        plain = cast("dict[str, Any]", plain_of(error.fields()))
        pack_plain(plain, CODEC_JSON)
    except InvalidPayloadError:
        # The fault must travel in whichever codec its request has; without fields, the error and its words still do.
        return {}
    return plain


def _is_permanent(error: BaseException) -> bool:
    """Our own errors say it of themselves; of a foreign exception nothing is known, so it is worth another try."""
    return isinstance(error, ValidationError) or (isinstance(error, MessagingError) and not error.transient)


def _chain_of(error: BaseException) -> tuple[Cause, ...]:
    causes = islice(_causes_of(error, seen={id(error)}), CHAIN_MAX)
    return tuple(Cause(error=_name_of(cause)[:200], reason=_reason_of(cause)[:CAUSE_MAX_CHARS]) for cause in causes)


def _causes_of(error: BaseException, *, seen: set[int]) -> Iterator[BaseException]:
    """Yield the causes, nearest first; of a group its members come before what the group itself was raised from."""
    near = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    if error.__cause__ is not None:
        near.append(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        near.append(error.__context__)
    for cause in near:
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            yield from _causes_of(cause, seen=seen)


def _trace_of(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    # Only places: a source line may hold a literal secret, a frame's locals hold payload.
    lines = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return _cut_from_the_middle("\n".join(lines), TRACE_MAX_BYTES)


def _cut_from_the_middle(text: str, max_bytes: int) -> str:
    """Return the text, or its beginning and end, in at most so many bytes: both ends of a trace tell the most."""
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    half = (max_bytes - len(_CUT.encode())) // 2
    return raw[:half].decode(errors="ignore") + _CUT + raw[-half:].decode(errors="ignore")


def _size_bytes(plain: Mapping[str, Any]) -> int:
    return len(pack_plain(plain, CODEC_MSGPACK))


def _fingerprint_of(error: BaseException) -> str:
    """Hash the type and the innermost frame outside this library and its dependencies, without line numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/messaging/" not in frame.filename]
    place = own[-1] if own else (frames[-1] if frames else None)
    where = "" if place is None else f"{PurePath(place.filename).name}:{place.name}"
    return hashlib.sha256(f"{_name_of(error)}\0{where}".encode()).hexdigest()[:16]
