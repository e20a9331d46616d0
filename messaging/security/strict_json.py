"""JSON that means one thing: no repeated or unknown fields, no floats, no NaN, integers that are integers.

Bundles and key files decide whom to trust. Two programs that read one file differently are two trust decisions, so
everything that parsers disagree on is refused.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from messaging.errors import ConfigurationError

__all__ = ["Fields", "dump_json", "load_json"]

INTEGER_MAX: Final = 2**53 - 1


def load_json(raw: bytes, where: str) -> "Fields":
    """Parse a JSON object.

    Args:
        raw: UTF-8 bytes, bounded by the caller.
        where: What it is, for errors.

    Raises:
        ConfigurationError: Not JSON, or JSON that parsers may read differently.
    """
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_object_without_repeats,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{where} is not valid JSON: {exc}") from exc
    return Fields(value, where)


def dump_json(value: object) -> bytes:
    """Return compact JSON with sorted keys: the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Fields:
    """Takes the fields of a JSON object one by one, each with its type; `end` refuses what is left over."""

    __slots__ = ("_left", "where")

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if type(value) is not dict:
            raise ConfigurationError(f"{where} must be a JSON object")
        self._left: dict[str, Any] = dict(value)

    def text(self, name: str) -> str:
        """Take a text."""
        return str(self._take(name, str))

    def integer(self, name: str, *, lowest: int = 0, highest: int = INTEGER_MAX) -> int:
        """Take an integer within bounds."""
        value = int(self._take(name, int))
        if not lowest <= value <= highest:
            self.refuse(f"field {name!r} must be between {lowest} and {highest}, not {value}")
        return value

    def optional_integer(self, name: str) -> int | None:
        """Take an integer from 0, or null."""
        if self._is_null(name):
            return None
        return self.integer(name)

    def boolean(self, name: str) -> bool:
        """Take true or false."""
        return bool(self._take(name, bool))

    def octets(self, name: str, *sizes: int) -> bytes:
        """Take bytes of one of the exact sizes, written in lower-case hex."""
        return self.as_octets(self._take(name, str), *sizes)

    def as_octets(self, value: object, *sizes: int) -> bytes:
        """Return bytes of one of the exact sizes from their lower-case hex."""
        try:
            raw = bytes.fromhex(value) if type(value) is str else b""
        except ValueError:
            raw = b""
        if len(raw) not in sizes or raw.hex() != value:
            self.refuse(f"expected {' or '.join(map(str, sizes))} bytes in lower-case hex, found {value!r}")
        return raw

    def optional_octets(self, name: str, size: int) -> bytes | None:
        """Take bytes of an exact size in lower-case hex, or null."""
        if self._is_null(name):
            return None
        return self.octets(name, size)

    def items(self, name: str) -> list[Any]:
        """Take a list."""
        return list(self._take(name, list))

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of different texts."""
        values = self.items(name)
        if not all(type(value) is str for value in values) or len(set(values)) != len(values):
            self.refuse(f"field {name!r} must be a list of different texts")
        return tuple(values)

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        """Take a list of different texts, or null."""
        if self._is_null(name):
            return None
        return self.texts(name)

    def mapping(self, name: str) -> dict[str, Any]:
        """Take an object as it is; whoever reads it later checks it."""
        return dict(self._take(name, dict))

    def objects(self, name: str) -> list["Fields"]:
        """Take a list of objects."""
        return [Fields(value, f"{self.where}, {name}[{at}]") for at, value in enumerate(self.items(name))]

    def object(self, name: str) -> "Fields":
        """Take an object."""
        return Fields(self._take(name, dict), f"{self.where}, {name}")

    def optional_object(self, name: str) -> "Fields | None":
        """Take an object or null."""
        if self._is_null(name):
            return None
        return self.object(name)

    def names(self) -> Iterable[str]:
        """Return the names of the fields not taken yet, for objects whose keys are names of things."""
        return tuple(self._left)

    def left(self) -> dict[str, Any]:
        """Return the fields not taken yet, as they are; whoever reads them checks them."""
        return dict(self._left)

    def end(self) -> None:
        """Refuse whatever was not taken.

        Raises:
            ConfigurationError: A field is left.
        """
        if self._left:
            self.refuse(f"unknown field {min(self._left)!r}: it needs a newer version of this library")

    def refuse(self, problem: str) -> NoReturn:
        """Raise for this object.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"{self.where}: {problem}")

    def _is_null(self, name: str) -> bool:
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return True
        return False

    def _take(self, name: str, expected: type) -> Any:
        if name not in self._left:
            self.refuse(f"field {name!r} is missing")
        value = self._left.pop(name)
        if type(value) is not expected:
            self.refuse(f"field {name!r} must be a JSON {expected.__name__}, not {type(value).__name__}")
        return value


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is repeated")
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no integer")
