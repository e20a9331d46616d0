"""Who may send what to whom: default deny, as data (docs/trust.md, "Policy").

A rule names a sender, a kind, a message name or `prefix.*`, and the service that owns the name. `prefix.*` matches
names that begin with `prefix.`, dot included, so `orders.*` says nothing about `orders_admin.wipe`; there is no other
wildcard.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from messaging.core.envelope import Kind
from messaging.core.names import is_message_name, is_service

__all__ = ["Escrow", "Policy", "ReplayGrant", "Rule", "is_pattern", "matches"]

_ANY: Final = ".*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The right of one sender to send messages of one kind.

    Attributes:
        sender: Service or operator.
        kind: Command, event or request.
        name: Message name, or `prefix.*`.
        to: The service that owns the name; of events too.
    """

    sender: str
    kind: Kind
    name: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayGrant:
    """The right of one operator to replay.

    Attributes:
        operator: `ops:<name>`.
        name: Message name, or `prefix.*`.
        to: The service where it failed.
        force: Whether done and very old messages may run again too.
    """

    operator: str
    name: str
    to: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    """Which kinds are also sealed to `group:ops`, so that operators can read them."""

    command: bool = False
    event: bool = False
    request: bool = False
    reply: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one bundle.

    Attributes:
        rules: Who may send.
        subscribe: Services that may read an event, by its name.
        escrow: What operators can read.
        replay: Who may replay.
    """

    rules: tuple[Rule, ...] = ()
    subscribe: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    escrow: Escrow = field(default_factory=Escrow)
    replay: tuple[ReplayGrant, ...] = ()
    _index: Mapping[tuple[str, Kind, str], tuple[Rule, ...]] = field(init=False, repr=False, compare=False)
    _escrowed: frozenset[Kind] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _indexed(self.rules))
        object.__setattr__(self, "_escrowed", _escrowed(self.escrow))

    def rule_for(self, sender: str, kind: Kind, name: str, to: str) -> Rule | None:
        """Return the rule that allows a message, or None: then it is denied."""
        for rule in self._index.get((sender, kind, to), ()):
            if matches(rule.name, name):
                return rule
        return None

    def audience_of_event(self, name: str) -> tuple[str, ...]:
        """Return the services that an event is sealed to."""
        return self.subscribe.get(name, ())

    def may_replay(self, operator: str, name: str, to: str, *, force: bool = False) -> bool:
        """Tell whether an operator may replay a message of this name where it failed."""
        return any(
            grant.operator == operator and grant.to == to and matches(grant.name, name) and (grant.force or not force)
            for grant in self.replay
        )

    def demands_escrow(self, kind: Kind) -> bool:
        """Tell whether messages of a kind must be readable for operators."""
        return kind in self._escrowed


def matches(pattern: str, name: str) -> bool:
    """Tell whether a message name or `prefix.*` covers a name."""
    if pattern.endswith(_ANY):
        return name.startswith(pattern[:-1])
    return pattern == name


def is_pattern(text: str) -> bool:
    """Tell whether the text may stand as the name of a rule."""
    if text.endswith(_ANY):
        prefix = text.removesuffix(_ANY)
        return is_service(prefix) or is_message_name(prefix)
    return is_message_name(text)


def _indexed(rules: Iterable[Rule]) -> dict[tuple[str, Kind, str], tuple[Rule, ...]]:
    index: dict[tuple[str, Kind, str], tuple[Rule, ...]] = {}
    for rule in rules:
        key = (rule.sender, rule.kind, rule.to)
        index[key] = (*index.get(key, ()), rule)
    return index


def _escrowed(escrow: Escrow) -> frozenset[Kind]:
    demanded = {
        Kind.COMMAND: escrow.command,
        Kind.EVENT: escrow.event,
        Kind.REQUEST: escrow.request,
        Kind.REPLY: escrow.reply,
        # A replay carries a command or an event.
        Kind.REPLAY: escrow.command or escrow.event,
    }
    return frozenset(kind for kind, is_demanded in demanded.items() if is_demanded)
