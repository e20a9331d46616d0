"""`DeadLetter`: a sealed original and why it failed; selecting, grouping and planning what to do with many of them.

Pure: `runtime.dead_letters` reads and acts, this module decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from uuid import UUID

from messaging.core.envelope import Kind
from messaging.core.fault import Fault

__all__ = ["Act", "DeadLetter", "Group", "Groups", "Selection", "group", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter as an operator sees it.

    Attributes:
        id: What tools show and take: hex digits, a unique beginning is enough.
        service: The service that failed.
        is_verified: Whether the letter and the original are proven; else every other field is a claim.
        fault: Why it failed.
        original: The sealed bytes as first published; empty when they could not be told apart.
        leaf: The original's leaf, 32 bytes.
        message_name, message_version, message_id, kind, sender, issued_at_ms: Of the original.
        correlation_id: Of the original.
        slot: Of the original, when it has a key.
        died_at_ms: When it was buried, Unix milliseconds; 0 when unknown.
        payload: The decrypted, decoded payload; None when this operator cannot read it.
        unreadable_because: Why there is no payload.
        key_state: State of the key that signed the original.
        is_replayable: Whether a replay may be tried.
        why_not: Why not.
    """

    id: str
    service: str
    is_verified: bool
    fault: Fault
    original: bytes = field(default=b"", repr=False)
    leaf: bytes = b""
    message_name: str = ""
    message_version: int = 1
    message_id: UUID | None = None
    correlation_id: UUID | None = None
    kind: Kind | None = None
    slot: int | None = None
    sender: str = ""
    issued_at_ms: int = 0
    died_at_ms: int = 0
    payload: object | None = field(default=None, repr=False)
    unreadable_because: str | None = None
    key_state: str = ""
    is_replayable: bool = False
    why_not: str | None = None

    def without_content(self) -> "DeadLetter":
        """Return a copy without payload and sealed bytes: what a report of many letters can afford to keep."""
        return replace(self, original=b"", payload=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters; all conditions must hold, None means any.

    Attributes:
        ids: Beginnings of ids, or of message ids.
        name, error, fingerprint, sender: Equal to this.
        older_than_s, younger_than_s: Age since burial, seconds.
    """

    ids: frozenset[str] = frozenset()
    name: str | None = None
    error: str | None = None
    fingerprint: str | None = None
    sender: str | None = None
    older_than_s: float | None = None
    younger_than_s: float | None = None

    def matches(self, letter: DeadLetter, *, now_ms: int) -> bool:
        """Tell whether a letter is selected."""
        wanted = (
            (self.name, letter.message_name),
            (self.error, letter.fault.error),
            (self.fingerprint, letter.fault.fingerprint),
            (self.sender, letter.sender),
        )
        if any(want is not None and want != have for want, have in wanted):
            return False
        age_s = (now_ms - letter.died_at_ms) / 1000
        if self.older_than_s is not None and age_s < self.older_than_s:
            return False
        if self.younger_than_s is not None and age_s > self.younger_than_s:
            return False
        return not self.ids or self._names(letter)

    def _names(self, letter: DeadLetter) -> bool:
        handles = [letter.id]
        if letter.message_id is not None:
            handles += [str(letter.message_id), letter.message_id.hex]
        # An empty beginning would select everything: never what somebody who names ids means.
        return any(wanted and handle.startswith(wanted) for wanted in self.ids for handle in handles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters that failed alike: same error, same place."""

    fingerprint: str
    error: str
    reason: str
    message_names: tuple[str, ...]
    count: int
    first_seen_ms: int
    last_seen_ms: int


class Act(Enum):
    """What a pass does with one letter."""

    TAKE = "take"
    KEEP = "keep"


class Groups:
    """Groups letters one by one, and keeps none of them."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count a letter in."""
        fingerprint = letter.fault.fingerprint or letter.fault.error
        found = self._groups.get(fingerprint)
        one = _alone(fingerprint, letter)
        self._groups[fingerprint] = one if found is None else _joined(found, one)

    def largest_first(self) -> list[Group]:
        """Return the groups, largest first, then by fingerprint."""
        return sorted(self._groups.values(), key=lambda found: (-found.count, found.fingerprint))


def group(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return the groups by fingerprint, largest first."""
    groups = Groups()
    for letter in letters:
        groups.add(letter)
    return groups.largest_first()


def plan(letter: DeadLetter, selection: Selection, *, now_ms: int, replaying: bool = True) -> Act:
    """Return what a pass does with a letter: TAKE what is selected, KEEP the rest.

    Args:
        letter: What was found.
        selection: Which.
        now_ms: Unix milliseconds.
        replaying: For a replay, a letter that cannot be replayed is kept; a discard takes it too.
    """
    is_wanted = selection.matches(letter, now_ms=now_ms) and (letter.is_replayable or not replaying)
    return Act.TAKE if is_wanted else Act.KEEP


def _alone(fingerprint: str, letter: DeadLetter) -> Group:
    return Group(
        fingerprint=fingerprint,
        error=letter.fault.error,
        reason=letter.fault.reason,
        message_names=(letter.message_name,),
        count=1,
        first_seen_ms=letter.died_at_ms,
        last_seen_ms=letter.died_at_ms,
    )


def _joined(found: Group, other: Group) -> Group:
    latest = other if other.last_seen_ms >= found.last_seen_ms else found
    return Group(
        fingerprint=found.fingerprint,
        error=latest.error,
        reason=latest.reason,
        message_names=tuple(sorted({*found.message_names, *other.message_names})),
        count=found.count + other.count,
        first_seen_ms=min(found.first_seen_ms, other.first_seen_ms),
        last_seen_ms=latest.last_seen_ms,
    )
