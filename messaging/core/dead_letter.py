"""`DeadLetter`: a sealed original and why it failed; selecting, grouping and planning what to do with many of them.

Pure: `runtime.dead_letters` reads and acts, this module decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from messaging.core.envelope import Kind
from messaging.core.fault import Fault

__all__ = ["Act", "DeadLetter", "Group", "Selection", "group", "plan"]


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
    sender: str = ""
    issued_at_ms: int = 0
    died_at_ms: int = 0
    payload: object | None = field(default=None, repr=False)
    unreadable_because: str | None = None
    key_state: str = ""
    is_replayable: bool = False
    why_not: str | None = None


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


def group(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return the groups by fingerprint, largest first."""
    by_fingerprint: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_fingerprint.setdefault(letter.fault.fingerprint or letter.fault.error, []).append(letter)
    groups = [_group(fingerprint, members) for fingerprint, members in by_fingerprint.items()]
    return sorted(groups, key=lambda found: (-found.count, found.fingerprint))


def plan(
    letters: Sequence[DeadLetter],
    selection: Selection,
    *,
    now_ms: int,
    limit: int | None = None,
    replaying: bool = True,
) -> list[Act]:
    """Return an act for each letter: TAKE what is selected, oldest first up to the limit, KEEP the rest.

    Args:
        letters: What the queue held at the start of the pass.
        selection: Which.
        now_ms: Unix milliseconds.
        limit: At most so many; None means all.
        replaying: For a replay, letters that cannot be replayed are kept; a discard takes them too.
    """
    chosen = [
        place
        for place, letter in enumerate(letters)
        if selection.matches(letter, now_ms=now_ms) and (letter.is_replayable or not replaying)
    ]
    chosen.sort(key=lambda place: letters[place].died_at_ms)
    taken = frozenset(chosen if limit is None else chosen[:limit])
    return [Act.TAKE if place in taken else Act.KEEP for place in range(len(letters))]


def _group(fingerprint: str, members: Sequence[DeadLetter]) -> Group:
    latest = max(members, key=lambda letter: letter.died_at_ms)
    return Group(
        fingerprint=fingerprint,
        error=latest.fault.error,
        reason=latest.fault.reason,
        message_names=tuple(sorted({letter.message_name for letter in members})),
        count=len(members),
        first_seen_ms=min(letter.died_at_ms for letter in members),
        last_seen_ms=latest.died_at_ms,
    )
