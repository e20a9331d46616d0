import pytest

from messaging import Command, Event, Request
from messaging.core.envelope import Kind
from messaging.core.message import contract_of
from messaging.errors import ConfigurationError
from messaging.runtime import plans as module
from messaging.runtime.plans import Plans


class Place(Command, name="orders.place"):
    """A command."""


class PlaceAgain(Command, name="orders.place", version=2):
    """The next version of it."""


class Placed(Event, name="orders.placed"):
    """An event."""


class Find(Request[int], name="orders.find"):
    """A request."""


class Abstract(Command):
    """Nothing that can be sent."""


@pytest.fixture
def plans() -> Plans:
    return Plans()


def test_a_class_has_its_audience_and_key(plans: Plans) -> None:
    command, event, request = (
        plans.of(message, kind)
        for message, kind in ((PlaceAgain(), Kind.COMMAND), (Placed(), Kind.EVENT), (Find(), Kind.REQUEST))
    )

    assert (command.contract, command.audience, command.routing_key) == (
        contract_of(PlaceAgain),
        "orders",
        "orders.place.v2",
    )
    assert (event.audience, event.routing_key) == ("event:orders.placed", "orders.placed.v1")
    assert (request.audience, request.routing_key) == ("orders", "orders.find.v1")


def test_it_is_looked_at_once(plans: Plans) -> None:
    first, again, other = (plans.of(message, Kind.COMMAND) for message in (Place(), Place(), PlaceAgain()))

    assert again is first
    assert other is not first


@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "known"])
def test_another_kind_is_refused_by_the_name_of_the_verb_to_use(plans: Plans, is_known: bool) -> None:
    if is_known:
        plans.of(Placed(), Kind.EVENT)

    with pytest.raises(ConfigurationError, match=r"Placed is a event: use publish\(\), not send\(\)"):
        plans.of(Placed(), Kind.COMMAND)


def test_an_abstract_class_cannot_be_sent(plans: Plans) -> None:
    with pytest.raises(ConfigurationError, match="Abstract is abstract"):
        plans.of(Abstract(), Kind.COMMAND)


def test_too_many_classes_are_forgotten_together(plans: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN_MAX", 1)
    first = plans.of(Place(), Kind.COMMAND)

    plans.of(PlaceAgain(), Kind.COMMAND)
    again = plans.of(Place(), Kind.COMMAND)

    assert again == first
    assert again is not first
