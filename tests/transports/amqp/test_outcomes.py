import asyncio

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.outcomes import fail, refused, unroutable, unwritable
from messaging.transports.amqp.parcel import Parcel

PARCEL = Parcel(
    body=b"x", route=Route(exchange="ex", routing_key="k" * 300), label=Label(message_id="1", type="t"), message_id="1"
)


def test_unroutable_names_key_and_exchange() -> None:
    error = unroutable(PARCEL)

    assert error.routing_key == PARCEL.route.routing_key
    assert "'ex'" in str(error)


def test_refused_is_no_unknown_outcome() -> None:
    assert refused(PARCEL).refused


def test_unwritable_shows_no_more_of_the_key_than_helps() -> None:
    error = unwritable(PARCEL, ValueError("too long"))

    assert error.refused
    assert "too long" in str(error)
    assert "k" * 81 not in str(error)


async def test_a_failure_is_told_to_whoever_still_waits() -> None:
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told.set_result(None)

    fail(waiting, refused(PARCEL))
    fail(told, refused(PARCEL))

    assert isinstance(waiting.exception(), type(refused(PARCEL)))
    assert told.exception() is None
