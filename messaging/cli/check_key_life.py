"""Looks until when the keys in a trust bundle may be used: who has no key left can no longer speak, or hear."""

from collections.abc import Iterator, Sequence
from typing import Final

from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.render import shown_age
from messaging.security.bundle import EncryptionEntry, KeyState, SigningEntry, TrustBundle

__all__ = ["check_key_life"]

# As with the bundle: whoever has to sign a new one needs a working day or two.
_SOON_MS: Final = 2 * 24 * 3_600_000
_CHECK: Final = "key expiry"


def check_key_life(bundle: TrustBundle, *, now_ms: int) -> list[Finding]:
    """Return which identities have no key left, or soon will have none.

    Args:
        bundle: In force.
        now_ms: The time.
    """
    ends = dict(_ends(bundle, now_ms))
    findings = [_judged(what, ends_ms - now_ms) for what, ends_ms in ends.items() if ends_ms < now_ms + _SOON_MS]
    return findings or [fine(_CHECK, "no identity runs out of keys within two days")]


def _judged(what: str, left_ms: int) -> Finding:
    identity = what.partition("'s ")[0]
    remedy = f"`messaging keys rotate {identity}`, sign, and install key file and bundle (docs/operations.md, Later)"
    if left_ms <= 0:
        return failed(_CHECK, f"{what} keys ended {shown_age(-left_ms / 1000)} ago", remedy=remedy)
    return warned(_CHECK, f"{what} keys end in {shown_age(left_ms / 1000)}", remedy=remedy)


def _ends(bundle: TrustBundle, now_ms: int) -> Iterator[tuple[str, int]]:
    """Yield when the last active key ends, for all whose active keys have an end."""
    for identity in (*bundle.services, *bundle.operators):
        for role, entries in (
            ("signing", tuple(bundle.signing[identity].values())),
            ("encryption", bundle.encryption.get(identity, ())),
        ):
            ends_ms = _last_end_ms(entries)
            if ends_ms is not None:
                yield f"{identity}'s {role}", ends_ms


def _last_end_ms(entries: Sequence[SigningEntry | EncryptionEntry]) -> int | None:
    ends = [entry.not_after_ms for entry in entries if entry.state is KeyState.ACTIVE]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None
