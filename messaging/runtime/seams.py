"""`Seams`: what a test harness replaces in a service for one run; production never sets one."""

from collections.abc import Callable
from dataclasses import dataclass, field

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope
from messaging.core.message import Message
from messaging.runtime.injection import Overrides
from messaging.runtime.middleware import Call
from messaging.runtime.router import Handler
from messaging.runtime.schedules import Schedules
from messaging.settings import Settings

__all__ = ["Seams"]


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
    """

    settings: Settings
    ambient: Ambient
    around: Callable[[Handler], Call]
    on_published: Callable[[Message, Envelope], None]
    on_schedules: Callable[[Schedules], None] = _nobody
    overrides: Overrides = field(default_factory=dict)
