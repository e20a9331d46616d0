"""Whether the fast path may be taken: its switch, and what it needs of the client library.

It stands on public names of aiormq only, yet on more of its behaviour than a caller usually does. So everything that
it relies on is looked at on each channel; whatever is not as expected turns it off for the whole transport, with one
warning, and the plain path does the same work.
"""

import asyncio
from importlib.metadata import version
from typing import Final

import aiormq
import structlog

from messaging.transports.amqp.splitter import Splitter

__all__ = ["FastPath", "obstacle"]

_TESTED_FROM: Final = (7, 2)
_TESTED_BELOW: Final = (8,)
# AMQP 0-9-1, 4.2.3: no peer may ask for less.
_FRAME_MIN_BYTES: Final = 4096

_log = structlog.get_logger()


class FastPath:
    """The switch of one transport.

    Args:
        is_on: Whether the fast path is wanted.
    """

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on

    def refuse(self, reason: str) -> None:
        """Turn it off for good, and say why."""
        if self.is_on:
            self.is_on = False
            _log.warning("fast_path.refused", reason=reason, remedy="install aiormq>=7.2.4,<8, or set MESSAGING_FAST=0")


def obstacle(channel: aiormq.Channel, splitter: Splitter) -> str | None:
    """Return what keeps a fresh channel from the fast path, in one line, or None."""
    return _untested() or _other_socket(splitter) or _other_channel(channel)


def _untested() -> str | None:
    found = version("aiormq")
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if _TESTED_FROM <= numbers < _TESTED_BELOW:
        return None
    return f"aiormq {found} is not one that the fast path was tested with"


def _other_socket(splitter: Splitter) -> str | None:
    return None if splitter.is_connected else "aiormq opened its socket without asking our factory"


def _other_channel(channel: aiormq.Channel) -> str | None:
    expected: dict[str, tuple[object, type]] = {
        "number": (getattr(channel, "number", None), int),
        "delivery_tag": (getattr(channel, "delivery_tag", None), int),
        "closing": (getattr(channel, "closing", None), asyncio.Future),
        "consumers": (getattr(channel, "consumers", None), dict),
        "on_consumer_cancel_callbacks": (getattr(channel, "on_consumer_cancel_callbacks", None), set),
    }
    for name, (value, kind) in expected.items():
        if not isinstance(value, kind):
            return f"a channel's {name} is a {type(value).__name__}, not a {kind.__name__}"
    if channel.delivery_tag != 0:
        return f"a fresh channel has published {channel.delivery_tag} messages already"
    frame_max = frame_max_of(channel)
    if not isinstance(frame_max, int) or frame_max < _FRAME_MIN_BYTES:
        return f"the agreed frame size is {frame_max!r}"
    return None


def frame_max_of(channel: aiormq.Channel) -> object:
    """Return the largest frame that was agreed with the broker, bytes, if it is where it is expected."""
    return getattr(getattr(channel.connection, "connection_tune", None), "frame_max", None)
