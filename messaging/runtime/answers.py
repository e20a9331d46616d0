"""Replies, both ways: a handler's payload as a message, and what it says to the caller: the answer, or a failure."""

from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from messaging.core.codec import decode_failure, decode_value, unpack
from messaging.core.envelope import Envelope, Kind
from messaging.core.fault import Fault
from messaging.core.message import Contract
from messaging.errors import ConfigurationError, InvalidPayloadError, RemoteError, RequestError

__all__ = ["answer_of", "reply_envelope"]

# A reply may still be wanted by a clock that is a little behind.
_LIFETIME_MIN_MS: Final = 60_000


def reply_envelope(
    request: Envelope, payload: bytes, *, leaf: bytes, codec: int, sender: str, message_id: UUID, now_ms: int
) -> Envelope:
    """Return the reply to a request.

    Args:
        request: The request.
        payload: Encoded `{"ok": …}` or `{"fault": …}`.
        leaf: The request's leaf, 32 bytes.
        codec: How the payload is encoded.
        sender: The service that answers.
        message_id: Of the reply.
        now_ms: Unix milliseconds.

    Raises:
        ConfigurationError: the request names no reply queue.
    """
    if request.reply_to is None:
        raise ConfigurationError("a request without a reply queue cannot be answered")
    return Envelope(
        id=message_id,
        kind=Kind.REPLY,
        name=request.name,
        version=request.version,
        sender=sender,
        audience=request.sender,
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + max(request.expires_at_ms - now_ms, _LIFETIME_MIN_MS),
        payload=payload,
        codec=codec,
        correlation_id=request.id,
        bind=leaf,
    )


def answer_of(contract: Contract, envelope: Envelope) -> Any:
    """Return the value of a reply, or raise what it says.

    Args:
        contract: Of the request.
        envelope: The reply.

    Raises:
        RemoteError: the handler failed; or the failure class that the request declares.
        InvalidPayloadError: the reply says neither, or not what the request promises.
    """
    plain = unpack(envelope.payload, envelope.codec)
    if not isinstance(plain, dict) or len(plain) != 1 or not plain.keys() <= {"ok", "fault"}:
        raise InvalidPayloadError(f"the reply to {envelope.type} has neither ok nor fault")
    if contract.reply is not None and "ok" in plain:
        return decode_value(contract.reply, plain["ok"])
    raise _error_of(contract, envelope, Fault.from_map(plain.get("fault")))


def _error_of(contract: Contract, envelope: Envelope, fault: Fault) -> RequestError:
    for failure in contract.raises:
        if failure.failure_name == fault.error:
            # Fields of another version, or none for want of room: the fault still says what went wrong.
            with suppress(InvalidPayloadError):
                return decode_failure(failure, fault.fields)
    return RemoteError(f"{envelope.sender} failed on {envelope.type}: {fault.error}: {fault.reason}", fault=fault)
