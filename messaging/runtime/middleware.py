"""The onion around every handler: `(message, context, call_next)`.

Example:
    async def timed(message, context, call_next):
        started = time.perf_counter()
        try:
            return await call_next(message, context)
        finally:
            histogram.observe(time.perf_counter() - started)
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from messaging.runtime.context import Context

__all__ = ["Call", "Middleware", "wrap"]

Call = Callable[[Any, Context], Awaitable[Any]]


class Middleware(Protocol):
    """Wraps every handler of a service; the first of the list is the outermost."""

    async def __call__(self, message: Any, context: Context, call_next: Call, /) -> Any:
        """Act around `await call_next(message, context)` and return its result."""


def wrap(handler: Call, middleware: Sequence[Middleware]) -> Call:
    """Return the handler inside its middleware."""
    call = handler
    for layer in reversed(middleware):
        call = _layered(layer, call)
    return call


def _layered(layer: Middleware, inner: Call) -> Call:
    async def call(message: Any, context: Context) -> Any:
        return await layer(message, context, inner)

    return call
