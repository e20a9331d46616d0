"""Cancellation that holds: the client library may swallow ours, and raises its own where nobody cancelled.

aiormq cancels the calls that wait on a channel which goes, and puts its own error in place of the cancellation that it
caught. When ours arrives in that moment it is lost, and a task that was told to end goes on for ever.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Final, TypeVar

__all__ = ["asked", "end"]

_Answer = TypeVar("_Answer")
_REPEAT_S: Final = 6.0


async def asked(asking: Awaitable[_Answer]) -> _Answer:
    """Return the client library's answer, and keep its cancellations and ours apart.

    Raises:
        ConnectionResetError: The channel or connection went away meanwhile.
        CancelledError: This task was cancelled meanwhile, whatever the library made of it.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        return await asking
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling() > before:
            raise
        raise ConnectionResetError("the channel is gone") from error
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return once they have ended; one that swallowed the cancellation is told again."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_REPEAT_S)
        for task in done:
            if not task.cancelled():
                # Retrieved: whoever ends a task has no use for how it ended.
                task.exception()
