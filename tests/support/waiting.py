"""Bounded waits for what a real broker does in its own time. Every wait ends with a sentence, never hangs."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["LIMIT_S", "eventually", "holds"]

POLL_S: Final = 0.01
# A machine that other tenants share may stop for seconds: far above what anything takes, and below a test's own limit.
LIMIT_S: Final = 60.0

Condition = Callable[[], bool | Awaitable[bool]]


async def eventually(
    condition: Condition, timeout_s: float = LIMIT_S, *, what: str | Callable[[], str] = "the condition"
) -> None:
    """Wait until the condition holds.

    Args:
        condition: Plain or asynchronous question; asked every 10 ms.
        timeout_s: Seconds until the wait is given up.
        what: What is waited for, or a callable that describes how far it came.

    Raises:
        AssertionError: It did not hold in time.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while not await _answer(condition):
        if loop.time() >= deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        await asyncio.sleep(POLL_S)


async def holds(condition: Condition, for_s: float = 0.2, *, what: str = "the condition") -> None:
    """Watch that the condition holds all the time, for a short while.

    Raises:
        AssertionError: It did not.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + for_s
    while True:
        assert await _answer(condition), f"did not hold for {for_s} s: {what}"
        if loop.time() >= until_s:
            return
        await asyncio.sleep(POLL_S)


async def _answer(condition: Condition) -> bool:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer
