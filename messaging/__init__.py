"""Signed, end-to-end encrypted messages between Python services over RabbitMQ.

Write messages (`Command`, `Event`, `Request`), handle them (`Service`), steer failures (`Reject`, `RetryLater`,
`RetryPolicy`), and work on what failed (`DeadLetters`). Names are loaded on first use, so importing the package costs
nothing. See README.md and docs/.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Command",
    "ConfigurationError",
    "ConnectionLostError",
    "Context",
    "DeadLetter",
    "DeadLetters",
    "Depends",
    "Event",
    "Fault",
    "InvalidPayloadError",
    "MessagingError",
    "PolicyError",
    "PublishNotConfirmedError",
    "Reject",
    "RemoteError",
    "RemoteFailure",
    "Request",
    "RequestTimeoutError",
    "RetryLater",
    "RetryPolicy",
    "Router",
    "Selection",
    "Service",
    "Settings",
    "UnroutableError",
    "open_operator",
]

__version__ = "0.1.0"

# Type checkers need the imports that the lazy loading hides from them: the one place where the two must differ.
if TYPE_CHECKING:
    from messaging.core.dead_letter import DeadLetter, Selection
    from messaging.core.fault import Fault
    from messaging.core.message import Command, Event, Request
    from messaging.core.retry import RetryPolicy
    from messaging.errors import (
        ConfigurationError,
        ConnectionLostError,
        InvalidPayloadError,
        MessagingError,
        PolicyError,
        PublishNotConfirmedError,
        Reject,
        RemoteError,
        RemoteFailure,
        RequestTimeoutError,
        RetryLater,
        UnroutableError,
    )
    from messaging.operators import open_operator
    from messaging.runtime.context import Context
    from messaging.runtime.dead_letters import DeadLetters
    from messaging.runtime.injection import Depends
    from messaging.runtime.router import Router
    from messaging.service import Service
    from messaging.settings import Settings

_HOMES = {
    "Command": "messaging.core.message",
    "Context": "messaging.runtime.context",
    "DeadLetter": "messaging.core.dead_letter",
    "DeadLetters": "messaging.runtime.dead_letters",
    "Depends": "messaging.runtime.injection",
    "Event": "messaging.core.message",
    "Fault": "messaging.core.fault",
    "Request": "messaging.core.message",
    "RetryPolicy": "messaging.core.retry",
    "Router": "messaging.runtime.router",
    "Selection": "messaging.core.dead_letter",
    "Service": "messaging.service",
    "Settings": "messaging.settings",
    "open_operator": "messaging.operators",
}


# Hidden from type checkers, for which it would make every misspelt name an `Any`.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load a public name on first use."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, "messaging.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
