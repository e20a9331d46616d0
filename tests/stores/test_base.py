"""The port of the inbox: its keys and answers are values, and the shipped adapter keeps its shape."""

import inspect
from uuid import UUID

import pytest

from messaging.ambient import real_ambient
from messaging.core.inbox import Decision
from messaging.stores.base import Inbox, InboxKey, Reservation
from messaging.stores.memory import MemoryInbox

KEY = InboxKey("orders", "users", UUID(int=1))
METHODS = [name for name, member in vars(Inbox).items() if inspect.iscoroutinefunction(member)]


def test_a_key_is_service_sender_and_id() -> None:
    same = InboxKey("orders", "users", UUID(int=1))

    assert {KEY: "row"}[same] == "row"
    assert KEY not in {InboxKey("billing", "users", UUID(int=1)), InboxKey("orders", "ops:users", UUID(int=1))}


def test_a_reservation_holds_nothing_unless_it_says_so() -> None:
    reservation = Reservation(key=KEY, decision=Decision.DROP)

    assert (reservation.token, reservation.outer, reservation.reply) == (None, None, None)


def test_the_port_has_one_method_for_each_step_of_a_row() -> None:
    assert METHODS == ["state", "reserve", "reserve_replay", "complete", "renew", "undo", "fail", "release"]


@pytest.mark.parametrize("name", METHODS)
def test_the_adapter_in_memory_keeps_the_port(name: str) -> None:
    inbox: Inbox = MemoryInbox(ambient=real_ambient())

    port = inspect.signature(getattr(Inbox, name))
    adapter = inspect.signature(getattr(type(inbox), name))

    assert adapter == port
