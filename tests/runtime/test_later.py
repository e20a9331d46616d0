import inspect

import pytest

from messaging.runtime.delays import Delays
from messaging.runtime.later import Later
from messaging.runtime.schedules import Schedules

METHODS = [name for name, member in vars(Later).items() if inspect.iscoroutinefunction(member)]


def test_a_message_can_be_put_off_and_perhaps_taken_back() -> None:
    assert METHODS == ["put", "cancel"]


@pytest.mark.parametrize("place", [Delays, Schedules])
@pytest.mark.parametrize("name", METHODS)
def test_each_place_to_wait_keeps_the_port(place: type[Later], name: str) -> None:
    assert inspect.signature(getattr(place, name)) == inspect.signature(getattr(Later, name))
