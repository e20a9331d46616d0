"""The rotation of keys, planned: from what the bundles say of an identity's keys to its one next step (docs/trust.md).

    publish    new keys become known as `next`: everybody accepts them, nobody uses them
    activate   they become `active`, those before `retiring`: verified and opened with, not used
    retire     once the longest life of a message is over, those become `retired`
    destroy    once no replay and no dead letter can need them, private halves and entries go

Signing and encryption keys go together. A step that comes too early would lose messages, so each has its earliest time;
the one exception is a key that is lost already: without a usable active key there is nothing to wait for. Values in,
plan out: nothing here reads a clock, a file or a key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from messaging.security.bundle import KeyState

__all__ = ["KeyFact", "Plan", "Step", "Timing", "plan_rotation"]

# Services look at the bundle every 5 s and hold what is under an unknown key for 60 s (docs/trust.md, "Versions").
SETTLE_MS: Final = 60_000
# Both clocks of a message may be off by so much (docs/spec.md, "Order of checks").
SKEW_MS: Final = 60_000
REPLAY_WINDOW_MS: Final = 7 * 24 * 3_600_000
DEAD_LETTER_AGE_MS: Final = 90 * 24 * 3_600_000
# How long both keys are in use around a planned change: longer than a data key serves (5 min), and clocks differ.
OVERLAP_MS: Final = 10 * 60_000


class Step(Enum):
    """A step of a rotation."""

    PUBLISH = "publish"
    ACTIVATE = "activate"
    RETIRE = "retire"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact:
    """One key, as the signed bundles tell.

    Attributes:
        kid: Id, hex digits.
        role: What it is for: `sign`, `enc`, or a group; of suite 2 with the suite, `enc of suite 2`.
        state: Its state now; a revocation outranks the entry.
        since_ms: When the first bundle with this state was issued, Unix milliseconds.
        not_before_ms, not_after_ms: Planned times; None is open.
        is_needed: Whether its role must have an active key: not when it is of a suite that nobody seals in.
    """

    kid: str
    role: str
    state: KeyState
    since_ms: int
    not_before_ms: int | None = None
    not_after_ms: int | None = None
    is_needed: bool = True

    @property
    def retiring_since_ms(self) -> int | None:
        """Since, or from when, nobody uses it any more; None while somebody does."""
        if self.state is KeyState.RETIRING:
            return self.since_ms
        return self.not_after_ms if self.state is KeyState.ACTIVE else None

    @property
    def is_out_of_use(self) -> bool:
        """Whether only its destruction is left."""
        return self.state in (KeyState.RETIRED, KeyState.COMPROMISED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things take, milliseconds.

    Attributes:
        max_lifetime_ms: Longest life of a message, of the bundle.
        settle_ms: Until every service has a bundle that was put in force.
        dead_letter_age_ms: How old a dead letter becomes before it is replayed or discarded.
    """

    max_lifetime_ms: int
    settle_ms: int = SETTLE_MS
    dead_letter_age_ms: int = DEAD_LETTER_AGE_MS

    @property
    def retiring_ms(self) -> int:
        """How long a key that nobody uses still verifies and opens."""
        return self.max_lifetime_ms + SKEW_MS

    @property
    def retired_ms(self) -> int:
        """How long a retired key is kept."""
        return max(REPLAY_WINDOW_MS, self.dead_letter_age_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next step of a rotation.

    Attributes:
        step: What it is.
        earliest_ms: Before that it would lose messages, Unix milliseconds.
        kids: The keys that change: those that become active, retired or nothing. Of `publish` none.
        is_urgent: There is no usable active key: nothing is lost by haste, everything by waiting.
    """

    step: Step
    earliest_ms: int
    kids: tuple[str, ...] = ()
    is_urgent: bool = False

    def is_due(self, *, now_ms: int) -> bool:
        """Tell whether the step may be taken."""
        return now_ms >= self.earliest_ms


def plan_rotation(keys: Sequence[KeyFact], timing: Timing, *, now_ms: int, begin: bool = False) -> Plan:
    """Return the one next step for an identity.

    Args:
        keys: All its keys in the bundle, of every role.
        timing: How long things take.
        now_ms: Unix milliseconds.
        begin: Whether a new rotation may begin while keys of an old one wait for their destruction.
    """
    idle = _idle_roles(keys, now_ms=now_ms)
    coming = [key for key in keys if key.state is KeyState.NEXT]
    if idle:
        rescue = tuple(key.kid for key in coming if key.role in idle)
        return Plan(step=Step.ACTIVATE if rescue else Step.PUBLISH, earliest_ms=now_ms, kids=rescue, is_urgent=True)
    if coming:
        return Plan(
            step=Step.ACTIVATE,
            earliest_ms=max(key.since_ms for key in coming) + timing.settle_ms,
            kids=tuple(key.kid for key in coming),
        )
    leaving = [(key.kid, since) for key in keys if (since := key.retiring_since_ms) is not None]
    if leaving:
        return Plan(
            step=Step.RETIRE,
            earliest_ms=max(since for _, since in leaving) + timing.retiring_ms,
            kids=tuple(kid for kid, _ in leaving),
        )
    return _destroy_or_publish(keys, timing, now_ms=now_ms, begin=begin)


def _destroy_or_publish(keys: Iterable[KeyFact], timing: Timing, *, now_ms: int, begin: bool) -> Plan:
    out = [key for key in keys if key.is_out_of_use]
    due = [key for key in out if key.since_ms + timing.retired_ms <= now_ms]
    if due:
        earliest_ms = max(key.since_ms for key in due) + timing.retired_ms
        return Plan(step=Step.DESTROY, earliest_ms=earliest_ms, kids=tuple(key.kid for key in due))
    if out and not begin:
        earliest_ms = min(key.since_ms for key in out) + timing.retired_ms
        return Plan(step=Step.DESTROY, earliest_ms=earliest_ms, kids=tuple(key.kid for key in out))
    return Plan(step=Step.PUBLISH, earliest_ms=now_ms)


def _idle_roles(keys: Sequence[KeyFact], *, now_ms: int) -> set[str]:
    """Return the roles in which no key is used now, though one has to be."""
    used = {
        key.role
        for key in keys
        if key.state is KeyState.ACTIVE and (key.not_after_ms is None or key.not_after_ms >= now_ms)
    }
    return {key.role for key in keys if key.is_needed} - used
