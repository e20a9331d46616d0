"""What a reply says: the answer as its declared type, or the failure that is raised at the caller."""

from contextlib import suppress
from typing import Any

from messaging.core.codec import decode_failure, decode_value, unpack
from messaging.core.envelope import Envelope
from messaging.core.fault import Fault
from messaging.core.message import Contract
from messaging.errors import InvalidPayloadError, RemoteError, RequestError

__all__ = ["answer_of"]


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
