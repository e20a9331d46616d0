"""`Seams`: what a test harness replaces in a service for one run; production never sets one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope
from messaging.core.message import Message
from messaging.runtime.injection import Overrides
from messaging.runtime.middleware import Call
from messaging.runtime.router import Handler
from messaging.runtime.schedules import Schedules
from messaging.settings import Settings

__all__ = ["Later", "Seams", "Timer"]


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Call it off; afterwards as well as before."""


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds; what an event loop's `call_later` does."""


def _nobody(_schedules: Schedules) -> None:
    """Take no note of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What a test harness replaces.

    Attributes:
        settings: Instead of the service's own.
        ambient: A fixed clock, ids and chance.
        around: Returns what is called instead of a handler.
        on_published: Told of every message that went out, once it is confirmed.
        on_schedules: Told of what sends scheduled messages, which waits for the fixed clock.
        overrides: What takes the place of handlers' dependencies.
        later: Calls a function after so many seconds of that clock.
    """

    settings: Settings
    ambient: Ambient
    around: Callable[[Handler], Call]
    on_published: Callable[[Message, Envelope], None]
    on_schedules: Callable[[Schedules], None] = _nobody
    overrides: Overrides = field(default_factory=dict)
    later: Later | None = None
