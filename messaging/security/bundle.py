"""`TrustBundle`: everybody's public keys, their states, and the policy, as one verified value (docs/trust.md).

It is looked up, never changed: a new bundle is a new value with another `generation`, and everything that was proven
under the old one is proven again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from messaging.security.keys import EncryptionKey, VerifyKey
from messaging.security.policy import Policy
from messaging.security.suite import SUITE_1

__all__ = ["OPS_GROUP", "EncryptionEntry", "KeyState", "SigningEntry", "TrustBundle", "missing_keys"]

OPS_GROUP = "group:ops"


class KeyState(Enum):
    """The state of a key now; a revocation outranks what the entry says.

    `NEXT` is published and accepted but not used yet, `ACTIVE` is used, `RETIRING` verifies and decrypts what is under
    way, `RETIRED` does nothing but show who signed, `COMPROMISED` is believed by nobody.
    """

    NEXT = "next"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"
    COMPROMISED = "compromised"

    @property
    def is_accepted(self) -> bool:
        """Whether messages signed under the key may be handled."""
        # Compared one by one: a set would have to hash the state each time, which enumerations do slowly.
        return self is _ACTIVE or self is _NEXT or self is _RETIRING


_NEXT, _ACTIVE, _RETIRING = KeyState.NEXT, KeyState.ACTIVE, KeyState.RETIRING


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningEntry:
    """A signing key as the bundle knows it; times are Unix milliseconds, None means open."""

    key: VerifyKey
    state: KeyState
    not_before_ms: int | None = None
    not_after_ms: int | None = None

    def covers(self, at_ms: int) -> bool:
        """Tell whether a time lies within the entry's."""
        return _covers(self.not_before_ms, self.not_after_ms, at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionEntry:
    """An encryption key as the bundle knows it; times are Unix milliseconds, None means open."""

    key: EncryptionKey
    state: KeyState
    not_before_ms: int | None = None
    not_after_ms: int | None = None

    def covers(self, at_ms: int) -> bool:
        """Tell whether a time lies within the entry's."""
        return _covers(self.not_before_ms, self.not_after_ms, at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """One verified bundle.

    Attributes:
        realm: The realm whose keys these are.
        is_development: Throwaway keys of a developer's machine.
        version: Rises with every change.
        issued_at_ms: When it was signed.
        expires_at_ms: Until when it may be relied on.
        suites: Suites that receivers accept; senders take the first.
        max_lifetime_ms: Longest life of a message.
        signing: Signing keys by sender and key id.
        encryption: Encryption keys by recipient: service, operator, group.
        members: Who belongs to a group.
        policy: Who may do what.
        generation: Digest of the content: the part of cache keys that changes with it.
    """

    realm: str
    is_development: bool
    version: int
    issued_at_ms: int
    expires_at_ms: int
    suites: tuple[int, ...]
    max_lifetime_ms: int
    signing: Mapping[str, Mapping[bytes, SigningEntry]]
    encryption: Mapping[str, tuple[EncryptionEntry, ...]]
    members: Mapping[str, frozenset[str]]
    policy: Policy
    generation: bytes

    @property
    def suite(self) -> int:
        """The suite that senders seal in."""
        return self.suites[0]

    @property
    def services(self) -> tuple[str, ...]:
        """The services it knows, sorted."""
        return tuple(sorted(name for name in self.signing if ":" not in name))

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators it knows, sorted."""
        return tuple(sorted(name for name in self.signing if ":" in name))

    def signing_entry(self, sender: str, skid: bytes) -> SigningEntry | None:
        """Return a sender's key; another's key of that id is no match."""
        return self.signing.get(sender, {}).get(skid)

    def active_signing_ids(self, sender: str, *, now_ms: int) -> frozenset[bytes]:
        """Return the ids of the keys that a sender signs with now."""
        entries = self.signing.get(sender, {})
        return frozenset(
            kid for kid, entry in entries.items() if entry.state is KeyState.ACTIVE and entry.covers(now_ms)
        )

    def active_encryption_keys(self, rid: str, *, now_ms: int, suite: int = SUITE_1) -> tuple[EncryptionKey, ...]:
        """Return the keys of a suite that a recipient's data keys are wrapped to now."""
        return tuple(
            entry.key
            for entry in self.encryption.get(rid, ())
            if entry.key.suite == suite and entry.state is KeyState.ACTIVE and entry.covers(now_ms)
        )

    def gives(self, rid: str, rkid: bytes, *, suite: int = SUITE_1) -> bool:
        """Tell whether a recipient must still be able to open what is wrapped to this key in a suite."""
        return any(
            entry.key.kid == rkid and entry.key.suite == suite and entry.state.is_accepted
            for entry in self.encryption.get(rid, ())
        )

    def is_addressed(self, identity: str, rid: str) -> bool:
        """Tell whether rows for `rid` are for this service or operator: its own, or a group's it belongs to."""
        return rid == identity or identity in self.members.get(rid, frozenset())


def missing_keys(identity: str, bundle: TrustBundle, *, what: str = "keys") -> str:
    """Return what to tell when the bundle lacks keys of a service, operator or group, with the remedy."""
    remedy = "add them and sign a newer bundle"
    if bundle.is_development:
        remedy = "start that service in this process, or run `messaging trust init --dev` again with --from it"
    return f"no {what} of {identity!r} in trust bundle version {bundle.version}; {remedy}"


def _covers(first_ms: int | None, last_ms: int | None, at_ms: int) -> bool:
    return (first_ms is None or first_ms <= at_ms) and (last_ms is None or at_ms <= last_ms)
