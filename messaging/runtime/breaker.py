"""`Breaker`: stops the handlers of a queue while what they need is away, and tries with one message whether it is back.

Opt-in, by `RetryPolicy(break_after=…)`: without it each message goes through its attempts into the dead letters while,
say, a partner's system is down for an hour. Open, it holds what has been delivered, unsettled, so that the broker
brings no more; after the pause one message is tried. Its queue as a whole stops, other handlers there included: before
a message is opened nobody knows whose it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from messaging.core.retry import RetryPolicy
from messaging.runtime.consumer import GivenBack
from messaging.runtime.handling import Handling

__all__ = ["Breaker"]

# How soon those who wait notice that a try went well.
_LOOK_EVERY_S: Final = 0.25

log = structlog.get_logger()


class Breaker:
    """The breaker of one queue.

    Args:
        queue: The queue.
        default: Policy of handlers that have none of their own.
        monotonic_s: Seconds that never go back.
    """

    def __init__(self, queue: str, *, default: RetryPolicy, monotonic_s: Callable[[], float]) -> None:
        self._queue = queue
        self._default = default
        self._monotonic_s = monotonic_s
        # Failures in a row by handler, and until when those with too many of them pause.
        self._failures: dict[str, int] = {}
        self._until_s: dict[str, float] = {}
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether deliveries are held."""
        return bool(self._until_s)

    @asynccontextmanager
    async def passage(self, handling: Handling, *, stopping: asyncio.Event) -> AsyncIterator[None]:
        """Handle a delivery inside, in its turn; what it came to decides about those after it.

        Raises:
            GivenBack: the service stops while it is held.
        """
        is_try = await self._entered(stopping)
        try:
            yield
            self._judge(handling)
        finally:
            if is_try:
                self._is_trying = False

    async def _entered(self, stopping: asyncio.Event) -> bool:
        """Wait for the turn; returns whether this is the one that is tried."""
        while self._until_s:
            left_s = max(self._until_s.values()) - self._monotonic_s()
            if left_s <= 0 and not self._is_trying:
                self._is_trying = True
                return True
            try:
                async with asyncio.timeout(min(left_s, _LOOK_EVERY_S) if left_s > 0 else _LOOK_EVERY_S):
                    await stopping.wait()
            except TimeoutError:
                continue
            raise GivenBack
        return False

    def _judge(self, handling: Handling) -> None:
        handler = handling.handler
        if handler is None:
            return
        policy = handler.retry or self._default
        if not policy.break_after:
            return
        fault = handling.fault
        if fault is None:
            self._failures.pop(handler.name, None)
            if self._until_s.pop(handler.name, None) is not None:
                log.info("breaker.closed", queue=self._queue, handler=handler.name)
        elif not fault.permanent:
            self._failed(handler.name, policy)

    def _failed(self, handler: str, policy: RetryPolicy) -> None:
        failures = self._failures[handler] = self._failures.get(handler, 0) + 1
        if failures < policy.break_after:
            return
        if handler not in self._until_s:
            log.warning(
                "breaker.opened", queue=self._queue, handler=handler, failures=failures, pause_s=policy.break_for_s
            )
        self._until_s[handler] = self._monotonic_s() + policy.break_for_s
