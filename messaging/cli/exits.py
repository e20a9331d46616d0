"""What the exit code of every verb means, and which error leads to which code (docs/cli.md, "Exit codes").

One table, so that scripts and monitoring may rely on it. `doctor` alone has its own scale, that of monitoring plug-ins.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from messaging.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidPayloadError,
    MessagingError,
    SealError,
    TopologyConflictError,
    UnknownMessageError,
)

__all__ = ["BusyError", "Exit", "NothingMatchedError", "UsageError", "exit_of", "known_error"]


class Exit(IntEnum):
    """Exit codes of every verb but `doctor`."""

    OK = 0
    FAILURE = 1
    CONFIGURATION = 2
    BROKER = 3
    REFUSED = 4
    NOTHING_MATCHED = 5
    INTERRUPTED = 130


class UsageError(MessagingError):
    """The command line asks for something that makes no sense."""


class BusyError(MessagingError):
    """Somebody else is at it."""

    transient = True


class NothingMatchedError(MessagingError):
    """The command was understood, and there is nothing it applies to."""


# The first row that fits decides.
_CODES: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (UsageError, Exit.CONFIGURATION),
    (NothingMatchedError, Exit.NOTHING_MATCHED),
    (ConfigurationError, Exit.CONFIGURATION),
    (InvalidPayloadError, Exit.CONFIGURATION),
    (UnknownMessageError, Exit.CONFIGURATION),
    (TopologyConflictError, Exit.FAILURE),
    (ConnectionLostError, Exit.BROKER),
    (SealError, Exit.REFUSED),
)


def exit_of(error: BaseException) -> Exit:
    """Return the exit code that an error leads to."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILURE)


def known_error(error: BaseException) -> MessagingError | OSError | None:
    """Return the error that one line can explain, looking into groups; None for a defect, which needs its traceback.

    Groups come from task groups; one member that is a defect makes the whole a defect.
    """
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, MessagingError | OSError)]
    return known[0] if known and len(known) == len(leaves) else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for member in error.exceptions:
        yield from _leaves(member)
