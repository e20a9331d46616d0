"""What of a newer bundle a sender uses already: what every bundle accepts that may be in force (docs/trust.md).

A new bundle reaches the replicas of an installation one after the other. Who has it accepts by it at once, and at once
obeys what it takes away; who sends waits with what is *new* in it, so that a replica that has not read it yet refuses
nothing. Rules, keys, suites and lifetimes are compared with the bundles held before; the first one that a process
loads has nothing new.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from messaging.core.ambient import Ambient
from messaging.security.bundle import OPS_GROUP, EncryptionEntry, KeyState, SigningEntry, TrustBundle
from messaging.security.policy import Escrow, Policy, ReplayGrant, Rule, matches

__all__ = ["SETTLE_S", "Settling", "settled"]

# Services look at the bundle every 5 s by default; the rest is for copying it to all machines.
SETTLE_S: Final = 30.0

_Entry = TypeVar("_Entry", SigningEntry, EncryptionEntry)


@dataclass(frozen=True, slots=True)
class _Waiting:
    bundle: TrustBundle
    usable_at_ms: int
    usable_at_s: float


class Settling:
    """The bundles of the last half minute, and what all of them accept.

    Args:
        ambient: Gives the time.
    """

    def __init__(self, *, ambient: Ambient) -> None:
        self._ambient = ambient
        self._before: TrustBundle | None = None
        self._waiting: list[_Waiting] = []
        self._seen: TrustBundle | None = None

    def take(self, bundle: TrustBundle, *, after: TrustBundle | None) -> None:
        """Take note of a bundle that is in force from now on.

        Args:
            bundle: The bundle.
            after: The one before; None when it is the first of this process.
        """
        self._seen = None
        if after is None or bundle.is_development:
            # There is nothing to compare the first one with, and what was in use before a restart must stay in use.
            # Development keys live on one machine.
            self._waiting.clear()
            return
        if not self._waiting:
            self._before = after
        self._waiting.append(
            _Waiting(bundle, bundle.issued_at_ms + int(SETTLE_S * 1000), self._ambient.monotonic_s() + SETTLE_S)
        )

    def view(self, current: TrustBundle) -> TrustBundle:
        """Return what to send by: the bundle in force, at first without what is new in it."""
        if not self._waiting:
            return current
        if self._settle():
            self._seen = None
        if not self._waiting or self._before is None:
            return current
        if self._seen is None:
            others = [self._before, *(waiting.bundle for waiting in self._waiting[:-1])]
            self._seen = settled(current, others, now_ms=self._ambient.now_ms())
        return self._seen

    def wait_s(self) -> float:
        """Return in how many seconds everything in the bundle in force is used."""
        return max((self._left_s(waiting) for waiting in self._waiting), default=0.0)

    def _settle(self) -> bool:
        """Drop what is old enough; returns whether anything was."""
        ripe = [at for at, waiting in enumerate(self._waiting) if self._left_s(waiting) <= 0]
        if not ripe:
            return False
        self._before = self._waiting[ripe[-1]].bundle
        del self._waiting[: ripe[-1] + 1]
        return True

    def _left_s(self, waiting: _Waiting) -> float:
        # By the signer's clock; should that be ahead of ours, by what has gone by here since the bundle was read.
        return min(
            (waiting.usable_at_ms - self._ambient.now_ms()) / 1000,
            waiting.usable_at_s - self._ambient.monotonic_s(),
        )


def settled(bundle: TrustBundle, before: Sequence[TrustBundle], *, now_ms: int) -> TrustBundle:
    """Return a bundle without what one of those before it would refuse.

    What was taken away stays away. A key that is new gives way to one that was in use and is still accepted; where
    there is none, nothing is gained by waiting. Readers are those of the bundle: one more is refused by nobody.

    Args:
        bundle: The bundle in force.
        before: Those that others may still have.
        now_ms: Unix milliseconds.
    """
    signing = {
        sender: _signing(entries, [other.signing.get(sender, {}) for other in before], now_ms=now_ms)
        for sender, entries in bundle.signing.items()
    }
    encryption = {
        rid: _encryption(entries, [other.encryption.get(rid, ()) for other in before], now_ms=now_ms)
        for rid, entries in bundle.encryption.items()
    }
    common = tuple(number for number in bundle.suites if all(number in other.suites for other in before))
    policies = [other.policy for other in before]
    digest = hashlib.sha256(b"".join(other.generation for other in (bundle, *before)))
    return replace(
        bundle,
        signing=signing,
        encryption=encryption,
        suites=common or bundle.suites,
        max_lifetime_ms=min(other.max_lifetime_ms for other in (bundle, *before)),
        policy=_policy(bundle.policy, policies, escrow_possible=_has_active(encryption.get(OPS_GROUP, ()))),
        generation=digest.digest(),
    )


def _signing(
    entries: Mapping[bytes, SigningEntry], before: Sequence[Mapping[bytes, SigningEntry]], *, now_ms: int
) -> dict[bytes, SigningEntry]:
    used = _used(entries, before, now_ms=now_ms)
    return {kid: _as_used(entry, is_used=kid in used) for kid, entry in entries.items()}


def _encryption(
    entries: Sequence[EncryptionEntry], before: Sequence[Sequence[EncryptionEntry]], *, now_ms: int
) -> tuple[EncryptionEntry, ...]:
    used: set[bytes] = set()
    for suite in {entry.key.suite for entry in entries}:
        used |= _used(_of_suite(entries, suite), [_of_suite(other, suite) for other in before], now_ms=now_ms)
    return tuple(_as_used(entry, is_used=entry.key.kid in used) for entry in entries)


def _of_suite(entries: Iterable[EncryptionEntry], suite: int) -> dict[bytes, EncryptionEntry]:
    return {entry.key.kid: entry for entry in entries if entry.key.suite == suite}


def _used(entries: Mapping[bytes, _Entry], before: Sequence[Mapping[bytes, _Entry]], *, now_ms: int) -> set[bytes]:
    """Return the ids of the keys to use: active ones that all know, else former ones, else what there is."""
    active = {kid for kid, entry in entries.items() if entry.state is KeyState.ACTIVE}
    usable = {
        kid
        for kid, entry in entries.items()
        if _serves(entry, now_ms=now_ms)
        and all(kid in other and _serves(other[kid], now_ms=now_ms) for other in before)
    }
    former = {kid for other in before for kid, entry in other.items() if entry.state is KeyState.ACTIVE}
    return (active & usable) or (former & usable) or active


def _serves(entry: SigningEntry | EncryptionEntry, *, now_ms: int) -> bool:
    # A key that ends within the half minute would leave nothing to use.
    return entry.state.is_accepted and entry.covers(now_ms) and entry.covers(now_ms + int(SETTLE_S * 1000))


def _as_used(entry: _Entry, *, is_used: bool) -> _Entry:
    if is_used:
        return entry if entry.state is KeyState.ACTIVE else replace(entry, state=KeyState.ACTIVE)
    return replace(entry, state=KeyState.NEXT) if entry.state is KeyState.ACTIVE else entry


def _has_active(entries: Iterable[EncryptionEntry]) -> bool:
    return any(entry.state is KeyState.ACTIVE for entry in entries)


def _policy(policy: Policy, before: Sequence[Policy], *, escrow_possible: bool) -> Policy:
    rules: tuple[Rule, ...] = policy.rules
    grants: tuple[ReplayGrant, ...] = policy.replay
    for other in before:
        rules = tuple(_common_rules(rules, other.rules))
        grants = tuple(_common_grants(grants, other.replay))
    escrow = policy.escrow
    if escrow_possible:
        # Leaving the operators' row out is what receivers with the older bundle refuse.
        escrow = Escrow(
            command=escrow.command or any(other.escrow.command for other in before),
            event=escrow.event or any(other.escrow.event for other in before),
            request=escrow.request or any(other.escrow.request for other in before),
            reply=escrow.reply or any(other.escrow.reply for other in before),
        )
    return replace(policy, rules=rules, replay=grants, escrow=escrow)


def _common_rules(rules: Iterable[Rule], others: Iterable[Rule]) -> Iterator[Rule]:
    known: dict[tuple[object, ...], list[str]] = {}
    for other in others:
        known.setdefault((other.sender, other.kind, other.to), []).append(other.name)
    for rule in rules:
        for name in known.get((rule.sender, rule.kind, rule.to), ()):
            if (common := _narrower(rule.name, name)) is not None:
                yield replace(rule, name=common)


def _common_grants(grants: Iterable[ReplayGrant], others: Sequence[ReplayGrant]) -> Iterator[ReplayGrant]:
    for grant in grants:
        for other in others:
            common = _narrower(grant.name, other.name)
            if common is not None and (grant.operator, grant.to) == (other.operator, other.to):
                yield replace(grant, name=common, force=grant.force and other.force)


def _narrower(first: str, second: str) -> str | None:
    """Return the pattern that covers what both cover; None when they have nothing in common."""
    if matches(first, second):
        return second
    return first if matches(second, first) else None
