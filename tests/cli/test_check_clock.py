"""This machine's clock beside the broker's."""

from dataclasses import replace

import pytest

from messaging.ambient import real_ambient
from messaging.cli.check_clock import check_clock
from messaging.cli.finding import State
from messaging.cli.management import Management
from messaging.errors import ConnectionLostError
from tests.support.installation import until
from tests.support.managed import ManagedNode

NOW_MS = 1_700_000_000_000


class Telling(Management):
    """Tells a time of its own."""

    def __init__(self, now_ms: int | None) -> None:
        super().__init__("http://127.0.0.1:1", vhost="/")
        self._now_ms = now_ms

    def now_ms(self) -> int | None:
        return self._now_ms


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0, State.OK, "within seconds of each other"),
        (-4, State.OK, "within seconds of each other"),
        (20, State.WARN, "20 s ahead of the broker's"),
        (-20, State.WARN, "20 s behind the broker's"),
        (300, State.FAIL, "5 min ahead of the broker's: messages are held, then refused"),
        (-300, State.FAIL, "5 min behind the broker's: messages are held, then refused"),
    ],
)
def test_how_far_they_are_apart(ahead_s: int, state: State, words: str) -> None:
    ambient = replace(real_ambient(), now_ms=lambda: NOW_MS + ahead_s * 1000)

    [found] = check_clock(Telling(NOW_MS), ambient)

    assert (found.state, found.words) == (state, words)


def test_an_api_without_the_time_says_nothing() -> None:
    assert check_clock(Telling(None), real_ambient()) == []


def test_an_api_that_does_not_answer_says_nothing() -> None:
    api = Management("http://127.0.0.1:1", vhost="/")

    with pytest.raises(ConnectionLostError):
        api.now_ms()
    assert check_clock(api, real_ambient()) == []


@pytest.mark.broker
def test_a_broker_on_this_machine_has_its_time(managed_node: ManagedNode) -> None:
    def is_the_same() -> bool:
        [found] = check_clock(Management(managed_node.management_url, vhost="/"), real_ambient())
        return found.state is State.OK

    # An answer that is some seconds old when it is read, because a machine stood still, tells an old time.
    until(is_the_same, what="the same time")
