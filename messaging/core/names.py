"""The grammar of names: services, operators, messages, versions, and who owns a name.

ASCII only and matched in full, so confusable letters, other scripts' digits and trailing newlines end here
(docs/spec.md, "Names").
"""

import re
from typing import Final

from messaging.errors import ConfigurationError

__all__ = ["is_message_name", "is_operator", "is_sender", "is_service", "owner_of", "parse_type", "type_of"]

NAME_MAX: Final = 120
VERSION_MAX: Final = 99_999
_RESERVED: Final = frozenset({"ops", "event", "group"})

_SERVICE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_OPERATOR: Final = re.compile(r"ops:[a-z][a-z0-9_-]{0,31}", re.ASCII)
_NAME: Final = re.compile(r"([a-z][a-z0-9_-]{0,31})(?:\.[a-z][a-z0-9_]*)+", re.ASCII)
_VERSION: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


def is_service(text: str) -> bool:
    """Tell whether the text may name a service: grammar, and not a reserved word."""
    return _SERVICE.fullmatch(text) is not None and text not in _RESERVED and not text.startswith("amq")


def is_operator(text: str) -> bool:
    """Tell whether the text names an operator, such as `ops:alice`."""
    return _OPERATOR.fullmatch(text) is not None


def is_sender(text: str) -> bool:
    """Tell whether the text may stand as the sender of a message."""
    return is_service(text) or is_operator(text)


def is_message_name(text: str) -> bool:
    """Tell whether the text is a message name such as `orders.place_order`, owned by a valid service."""
    return len(text) <= NAME_MAX and (found := _NAME.fullmatch(text)) is not None and is_service(found[1])


def owner_of(name: str) -> str:
    """Return the service that owns a message name: its first label."""
    return name.partition(".")[0]


def type_of(name: str, version: int) -> str:
    """Return the wire type of a message, such as `orders.place_order/1`."""
    return f"{name}/{version}"


def parse_type(text: str) -> tuple[str, int] | None:
    """Return name and version of a wire type, or None when it breaks the grammar."""
    name, slash, version = text.partition("/")
    if not slash or not is_message_name(name) or _VERSION.fullmatch(version) is None:
        return None
    return name, int(version)


def check_service(text: str) -> str:
    """Return the text if it may name a service.

    Raises:
        ConfigurationError: It may not.
    """
    if not is_service(text):
        raise ConfigurationError(
            f"{text!r} cannot name a service: use a to z, 0 to 9, _ and -, a letter first, at most 32 characters, "
            "and none of ops, event, group or amq…"
        )
    return text
