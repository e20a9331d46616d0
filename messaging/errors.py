"""Every error that `messaging` raises on purpose.

A class answers *what may the caller do?*; `transient` answers *may the same act succeed later?*; the message names the
thing and the remedy. Errors of other libraries are mapped where they happen and never leave the adapters.

    MessagingError
      ConfigurationError                 a mistake in code or settings, raised at import or start
      MessageError                       the message itself is wrong
        UnknownMessageError              nobody here handles this name and version (another replica may)
        InvalidPayloadError              the payload does not fit its model
        MessageTooLargeError             the payload is beyond the size cap
      SealError                          the bytes must not be believed
        MalformedError, UnsupportedError, AudienceError, StaleMessageError, UnknownKeyError,
        SignatureError, DecryptionError, DuplicateError, PolicyError
          NotYetUsableError              a policy rule that is too new to send by; passes by itself
      TransportError                     the broker
        ConnectionLostError              no broker
        UnroutableError                  nobody is bound to the routing key
        PublishNotConfirmedError         the outcome is unknown; repeat with the same id
        TopologyConflictError            a queue or exchange exists with other arguments
      RequestError
        RequestTimeoutError              no answer by the deadline; the outcome is unknown
        RemoteError                      the handler failed over there; carries its fault
        RemoteFailure                    base of the typed domain errors that a contract declares
      HandlerSignal                      raised by handlers to steer, not to fail
        Reject                           permanent: no retry
        RetryLater                       try again after a delay
"""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Final, dataclass_transform
from uuid import UUID

__all__ = [
    "AudienceError",
    "ConfigurationError",
    "ConnectionLostError",
    "DecryptionError",
    "Disposition",
    "DuplicateError",
    "HandlerSignal",
    "InvalidPayloadError",
    "MalformedError",
    "MessageError",
    "MessageTooLargeError",
    "MessagingError",
    "NotYetUsableError",
    "PolicyError",
    "PublishNotConfirmedError",
    "Reject",
    "RemoteError",
    "RemoteFailure",
    "RequestError",
    "RequestTimeoutError",
    "RetryLater",
    "SealError",
    "SignatureError",
    "StaleMessageError",
    "TopologyConflictError",
    "TransportError",
    "UnknownKeyError",
    "UnknownMessageError",
    "UnroutableError",
    "UnsupportedError",
]

_FAILURE_NAME_MAX: Final = 120


class MessagingError(Exception):
    """Base of all errors of this library."""

    transient: ClassVar[bool] = False


class ConfigurationError(MessagingError):
    """A mistake in code or settings: raised at import or start, mended by an edit."""


class MessageError(MessagingError):
    """The message itself is wrong."""


class UnknownMessageError(MessageError):
    """No handler for this name and version in this replica; during a rolling deploy another replica may have one."""

    transient = True


class InvalidPayloadError(MessageError):
    """The payload does not fit its model or is no valid encoding."""


class MessageTooLargeError(MessageError):
    """The payload is larger than the cap."""


class Disposition(Enum):
    """Where a delivery goes that cannot be believed or read (docs/spec.md, "Where a refused message goes")."""

    UNAUTHENTIC = "unauthentic"
    REFUSED = "refused"
    EXPIRED = "expired"
    SKIPPED = "skipped"
    LOCAL = "local"
    LAG = "lag"
    CONTENT = "content"
    DUPLICATE = "duplicate"


class SealError(MessagingError):
    """The bytes must not be believed. `code` is the label of counters; `disposition` says where the delivery goes.

    Args:
        message: What is wrong.
        disposition: Where the delivery goes.
        evidence: The `security` layer's `Verified` header when the signature holds and the message is refused all the
            same; None while nothing about it is proven.
    """

    code: ClassVar[str] = "seal"

    def __init__(
        self,
        message: str,
        *,
        disposition: Disposition = Disposition.UNAUTHENTIC,
        evidence: object | None = None,
    ) -> None:
        super().__init__(message)
        self.disposition = disposition
        self.evidence = evidence


class MalformedError(SealError):
    """Not the bytes of a sealed message: shape, types, lengths, grammar, canonical form."""

    code = "malformed"


class UnsupportedError(SealError):
    """A version, suite or critical extension that this receiver does not speak."""

    code = "unsupported"


class AudienceError(SealError):
    """Not for this service, not for this queue, or no key row for this service."""

    code = "audience"


class StaleMessageError(SealError):
    """Expired, or issued ahead of this machine's clock."""

    code = "stale"


class UnknownKeyError(SealError):
    """No such sender or key in the trust bundle, or a key in a state that may not be used."""

    code = "unknown_key"


class PolicyError(SealError):
    """The trust bundle's policy does not allow this sender to send this message there."""

    code = "policy"


class NotYetUsableError(PolicyError):
    """The rule that allows the message is so new that some receivers may not know it; wait, or let the retry do so."""

    code = "not_yet_usable"
    transient = True


class SignatureError(SealError):
    """The signature or the batch path does not hold."""

    code = "signature"


class DecryptionError(SealError):
    """The content cannot be opened: key block, wrap, commitment or ciphertext."""

    code = "decryption"


class DuplicateError(SealError):
    """This message has been handled, is being handled, or other bytes were recorded under its id."""

    code = "duplicate"


class TransportError(MessagingError):
    """The broker could not do what was asked."""

    transient = True


class ConnectionLostError(TransportError):
    """No connection to the broker."""


class UnroutableError(TransportError):
    """No queue is bound to the routing key: nobody handles this message."""

    transient = False

    def __init__(self, message: str, *, routing_key: str) -> None:
        super().__init__(message)
        self.routing_key = routing_key


class PublishNotConfirmedError(TransportError):
    """The broker refused the message or did not confirm it in time.

    After a refusal (`refused`) it is not in the queue; else the outcome is unknown and the same message may be repeated
    under the same id.
    """

    def __init__(self, message: str, *, message_id: UUID | None = None, refused: bool = False) -> None:
        super().__init__(message)
        self.message_id = message_id
        self.refused = refused


class TopologyConflictError(TransportError):
    """A queue or exchange exists with other arguments, or is gone."""

    transient = False


class RequestError(MessagingError):
    """A request did not get the answer that its type promises."""


class RequestTimeoutError(RequestError):
    """No answer by the deadline. The outcome is unknown; repeat with the same `message_id`."""

    transient = True

    def __init__(self, message: str, *, message_id: UUID) -> None:
        super().__init__(message)
        self.message_id = message_id


class RemoteError(RequestError):
    """The handler of a request failed over there; `fault` says how.

    It is `transient` unless the fault is permanent: what may succeed over there later may do so for the caller.
    """

    def __init__(self, message: str, *, fault: Any) -> None:
        super().__init__(message)
        self.fault = fault
        # On the instance: the class cannot know what went wrong over there.
        self.transient = not getattr(fault, "permanent", True)  # type: ignore[misc]


@dataclass_transform(kw_only_default=True)
class RemoteFailure(RequestError):
    """Base of typed domain errors: raised in the handler, raised again with its fields at the caller.

    A request declares them with `raises=`; nothing is ever imported by a name from the wire.

    Example:
        class OutOfStock(RemoteFailure, name="orders.out_of_stock"):
            sku: str
    """

    failure_name: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str, transient: bool = False) -> None:
        """Give the class its wire name and make its annotations keyword-only fields.

        Raises:
            ConfigurationError: name is empty or too long.
        """
        super().__init_subclass__()
        if not 0 < len(name) <= _FAILURE_NAME_MAX:
            raise ConfigurationError(f"{cls.__name__}: name= must have 1 to {_FAILURE_NAME_MAX} characters")
        cls.failure_name = name
        cls.transient = transient
        # eq=False keeps exceptions hashable by identity, which tracebacks and exception groups rely on.
        dataclass(kw_only=True, eq=False)(cls)

    def __post_init__(self) -> None:
        Exception.__init__(self, str(self))

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.fields().items())
        return f"{self.failure_name}({shown})"

    def fields(self) -> dict[str, Any]:
        """Return the declared fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


class HandlerSignal(MessagingError):
    """Raised by a handler to steer its own retries."""


class Reject(HandlerSignal):
    """The message can never succeed: no retry, straight to the dead letters.

    Args:
        reason: Shown to operators and to the origin.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(HandlerSignal):
    """Try again on the first rung that is not shorter than the delay.

    Args:
        delay_s: Seconds, ≥ 0.
        reason: Shown to operators.
    """

    transient = True

    def __init__(self, delay_s: float, reason: str = "the handler asked for a later retry") -> None:
        super().__init__(reason)
        self.delay_s = delay_s
        self.reason = reason
