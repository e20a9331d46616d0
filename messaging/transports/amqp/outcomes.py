"""What the broker's answers to one publish mean for its caller, in words; the same for every kind of channel."""

from messaging.errors import PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.base import Confirm

__all__ = ["fail", "refused", "unroutable", "unwritable"]


def fail(confirm: Confirm, error: Exception) -> None:
    """Tell that a message failed, if anybody still waits to hear it."""
    if not confirm.done():
        confirm.set_exception(error)


def unroutable(parcel: Parcel) -> UnroutableError:
    """Return the error of a message that came back: no queue takes it."""
    route = parcel.route
    return UnroutableError(
        f"nobody handles routing key {route.routing_key!r} of exchange {route.exchange!r}; "
        "start the service that does, or check the name",
        routing_key=route.routing_key,
    )


def refused(parcel: Parcel) -> PublishNotConfirmedError:
    """Return the error of a message that the broker did not accept."""
    return PublishNotConfirmedError(
        f"the broker refused a message for {parcel.route.routing_key!r}: a queue is full or cannot store it; "
        "see its length and the broker's log",
        refused=True,
    )


def unwritable(parcel: Parcel, error: Exception) -> PublishNotConfirmedError:
    """Return the error of a message with a name or property that AMQP has no form for."""
    return PublishNotConfirmedError(
        f"routing key {parcel.route.routing_key[:80]!r} or a property cannot be written as AMQP: {error}",
        refused=True,
    )
