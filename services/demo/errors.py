"""What ends the demo early, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from messaging import MessagingError

__all__ = ["DemoError", "in_time"]


class DemoError(MessagingError):
    """The story cannot go on; the message says why and what to do."""


@contextmanager
def in_time(what: str, *, see: object) -> Iterator[None]:
    """Say what did not happen in time when the block times out.

    Args:
        what: What the block waits for, such as "the order was placed".
        see: Where the reader finds out more.

    Raises:
        DemoError: the block timed out.
    """
    try:
        yield
    except TimeoutError as error:
        raise DemoError(f"it took too long until {what}; see {see}") from error
