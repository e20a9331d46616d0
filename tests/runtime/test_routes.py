from dataclasses import replace
from uuid import UUID

import pytest

from messaging.core.envelope import Envelope, Kind
from messaging.core.topology import Names, slot_routing_key
from messaging.runtime import routes as module
from messaging.runtime.routes import Routes
from messaging.testing.clock import FixedClock

KEY = "orders.place_order.v1"


def envelope(kind: Kind, **changes: object) -> Envelope:
    made = Envelope.first(
        id=UUID(int=1),
        kind=kind,
        name="orders.place_order",
        version=1,
        sender="users",
        issued_at_ms=0,
        expires_at_ms=0,
        payload=b"",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def routes(clock: FixedClock) -> Routes:
    return Routes(Names("messaging"), ambient=clock.ambient)


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.EVENT, Kind.FAULT])
def test_what_must_survive_is_persistent_and_does_not_expire_in_its_queue(routes: Routes, kind: Kind) -> None:
    route = routes.of(envelope(kind), KEY)

    assert (route.persistent, route.expiration_ms, route.mandatory) == (True, None, True)
    assert routes.of(envelope(kind, id=UUID(int=2)), KEY) is route


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.REPLY])
def test_what_somebody_waits_for_now_leaves_its_queue_with_its_deadline(
    routes: Routes, clock: FixedClock, kind: Kind
) -> None:
    late, soon = clock.now_ms() - 1, clock.now_ms() + 700

    assert routes.of(envelope(kind, expires_at_ms=soon), KEY).expiration_ms == 700
    assert routes.of(envelope(kind, expires_at_ms=late), KEY).expiration_ms == 1
    assert not routes.of(envelope(kind), KEY).persistent


def test_a_command_with_a_slot_goes_to_the_key_of_its_slot_and_an_event_does_not(routes: Routes) -> None:
    assert routes.of(envelope(Kind.COMMAND, slot=3), KEY).routing_key == slot_routing_key(KEY, 3)
    assert routes.of(envelope(Kind.COMMAND, slot=4), KEY).routing_key == slot_routing_key(KEY, 4)
    assert routes.of(envelope(Kind.COMMAND), KEY).routing_key == KEY
    assert routes.of(envelope(Kind.EVENT, slot=3), KEY).routing_key == KEY


def test_what_is_remembered_is_bounded(routes: Routes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN_MAX", 4)

    made = [routes.of(envelope(Kind.COMMAND), f"{KEY}{number}") for number in range(20)]

    assert [route.routing_key for route in made] == [f"{KEY}{number}" for number in range(20)]
    assert len(routes._known) <= 4


def test_the_label_names_id_and_type(routes: Routes) -> None:
    label = routes.label(envelope(Kind.COMMAND))

    assert (label.message_id, label.type) == (UUID(int=1).hex, "orders.place_order/1")
