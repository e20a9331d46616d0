"""`Ways`: what is to be done with each message that a service handles, decided once when it starts.

While messages run, one look by kind, name and version finds the handler inside its middleware, how long it may take and
how long its inbox row is leased.
"""

from collections.abc import Callable, Sequence
from typing import Final

from messaging.core.envelope import Kind
from messaging.core.retry import RetryPolicy
from messaging.core.values import value
from messaging.runtime.middleware import Call, Middleware, wrap
from messaging.runtime.router import Handler, Router

__all__ = ["LEASE_SLACK_S", "Way", "Ways"]

LEASE_SLACK_S: Final = 30.0
"""How long after its deadline a lease is left to a handler that overran it."""


@value
class Way:
    """How one kind of message is handled.

    Attributes:
        handler: The handler.
        call: The handler inside its middleware.
        timeout_s: Seconds that one run may take.
        lease_s: Seconds that all runs of one delivery may take.
        is_request: Whether it is answered.
    """

    handler: Handler
    call: Call
    timeout_s: float
    lease_s: float
    is_request: bool


class Ways:
    """The ways of one service.

    Args:
        router: Its handlers.
        around: Returns what is called instead of a handler.
        middleware: Wraps every handler, the first outermost.
        retry: Policy of handlers that have none of their own.
        timeout_s: Seconds for one run, of handlers that do not say.
    """

    def __init__(
        self,
        router: Router,
        *,
        around: Callable[[Handler], Call],
        middleware: Sequence[Middleware],
        retry: RetryPolicy,
        timeout_s: float,
    ) -> None:
        self._router = router
        self._known: dict[tuple[Kind, str, int], Way] = {}
        for handler in router.handlers:
            once_s = handler.timeout_s or timeout_s
            self._known[handler.key] = Way(
                handler=handler,
                call=wrap(around(handler), middleware),
                timeout_s=once_s,
                lease_s=(1 + (handler.retry or retry).immediate) * once_s + LEASE_SLACK_S,
                is_request=handler.kind is Kind.REQUEST,
            )

    def find(self, kind: Kind, name: str, version: int) -> Way | None:
        """Return the way of a message, or None when this replica has no handler for it."""
        return self._known.get((kind, name, version))

    def resolve(self, kind: Kind, name: str, version: int) -> Way:
        """Return the way of a message.

        Raises:
            UnknownMessageError: this replica has no handler for it.
        """
        return self._known.get((kind, name, version)) or self._known[self._router.resolve(kind, name, version).key]
