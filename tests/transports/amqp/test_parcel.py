from typing import Any
from uuid import UUID

import pytest

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.parcel import Parcel

ID = UUID(int=7)
ROUTE = Route(exchange="ex", routing_key="key")


def written(route: Route, label: Label) -> dict[str, Any]:
    properties = Parcel.of(b"body", route, label, new_id=lambda: ID).properties
    return {name: value for name, value in dict(properties).items() if value}


def test_goes_where_the_route_says() -> None:
    route = Route(exchange="ex", routing_key="key", mandatory=False)

    parcel = Parcel.of(b"body", route, Label(message_id=ID.hex, type="t/1"), new_id=lambda: UUID(int=9))

    assert (parcel.body, parcel.route) == (b"body", route)
    assert parcel.id == ID


def test_writes_no_more_than_it_must() -> None:
    assert written(ROUTE, Label(message_id=ID.hex, type="t/1")) == {
        "content_type": "application/vnd.messaging.sealed",
        "delivery_mode": 2,
        "message_id": ID.hex,
        "message_type": "t/1",
    }


@pytest.mark.parametrize(("expiration_ms", "text"), [(60_000, "60000"), (0, "0"), (-5, "0")])
def test_life_is_written_in_milliseconds(expiration_ms: int, text: str) -> None:
    route = Route(exchange="ex", routing_key="key", persistent=False, expiration_ms=expiration_ms)

    properties = written(route, Label(message_id=ID.hex, type="t/1"))

    assert (properties["expiration"], properties["delivery_mode"]) == (text, 1)


def test_retried_message_carries_its_history() -> None:
    label = Label(message_id=ID.hex, type="t/1", attempt=3, first_failed_ms=5)

    assert written(ROUTE, label)["headers"] == {"x-attempt": 3, "x-first-failed": 5}


def test_message_without_an_id_gets_one() -> None:
    parcel = Parcel.of(b"junk", ROUTE, Label(message_id="", type=""), new_id=lambda: ID)

    assert (parcel.message_id, parcel.properties.message_type) == (ID.hex, None)


def test_id_of_a_stranger_is_no_uuid() -> None:
    parcel = Parcel.of(b"junk", ROUTE, Label(message_id="whatever", type=""), new_id=lambda: ID)

    assert (parcel.message_id, parcel.id) == ("whatever", None)


def test_no_priority_is_said_because_versions_disagree_about_it() -> None:
    assert Parcel.of(b"x", ROUTE, Label(message_id=ID.hex, type="t/1"), new_id=lambda: ID).properties.priority is None
