"""What exists at a broker, as values: exchanges, queues, bindings, all of it together, and who makes what.

No name is spelled here: that is done by `core.topology`, whose words these are.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal, TypeVar

__all__ = ["SINGLE_ACTIVE", "Argument", "Binding", "Declares", "Exchange", "Queue", "Topology"]

SINGLE_ACTIVE: Final = "x-single-active-consumer"

Argument = str | int
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange.

    Attributes:
        name, type: As the broker knows it.
        alternate: The exchange that takes what it cannot route.
        is_shared: Whether all services use it; the others belong to one.
    """

    name: str
    type: Literal["topic", "fanout", "direct"]
    alternate: str | None = None
    is_shared: bool = False

    @property
    def arguments(self) -> dict[str, Argument]:
        """Arguments of the declaration."""
        return {} if self.alternate is None else {"alternate-exchange": self.alternate}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue and its arguments.

    Attributes:
        name, arguments: As the broker knows it.
        is_passing: Whether it belongs to one running instance, which nobody can make it for beforehand.
    """

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    is_passing: bool = False

    @property
    def is_single_active(self) -> bool:
        """Whether the broker feeds one of its consumers at a time; the others stand by."""
        return self.arguments.get(SINGLE_ACTIVE) is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an exchange puts into a queue."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What should exist, in the order of declaration: exchanges, queues, bindings."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: "Topology") -> "Topology":
        return Topology(
            exchanges=_once((*self.exchanges, *other.exchanges)),
            queues=_once((*self.queues, *other.queues)),
            bindings=_once((*self.bindings, *other.bindings)),
        )

    def without(self, bindings: Collection[Binding]) -> "Topology":
        """Return all of it but these bindings."""
        return replace(self, bindings=tuple(binding for binding in self.bindings if binding not in bindings))


class Declares(Enum):
    """What a program makes exist; the rest must be there already, and is only looked for.

    `ALL`: everything. `OWN`: all but the exchanges that services share. `REPLIES`: the reply queue of its own instance.
    Which rights at the broker each of them takes is computed in `core.permissions`.
    """

    ALL = "all"
    OWN = "own"
    REPLIES = "replies"

    def makes(self, thing: Exchange | Queue) -> bool:
        """Tell whether a program makes an exchange, or a queue and its bindings."""
        if self is Declares.ALL:
            return True
        if isinstance(thing, Queue):
            return thing.is_passing or self is Declares.OWN
        return not thing.is_shared and self is Declares.OWN


def _once(items: Iterable[_Item]) -> tuple[_Item, ...]:
    kept: list[_Item] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return tuple(kept)
