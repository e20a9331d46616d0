"""From a verified message to its content: key block, data key, commitment, cipher (docs/spec.md, "Order of checks").

Steps 10 to 14. The data key of a sender's period is unwrapped once and kept for a while; everything that decided about
it is part of the cache key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.envelope import Kind
from messaging.core.values import value
from messaging.errors import AudienceError, DecryptionError, Disposition, UnknownKeyError
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP, TrustBundle
from messaging.security.cache import BoundedCache
from messaging.security.content import Content, parse_content
from messaging.security.header import Address
from messaging.security.keyblock import KeyBlock, Row, parse_block
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey
from messaging.security.suite import DataKey
from messaging.security.verified import Verified

__all__ = ["Unwrapping"]

KEYS_MAX: Final = 4_096
KEYS_PER_SENDER: Final = 256
KEYS_LIFE_S: Final = 600.0
KEY_AHEAD_MAX_MS: Final = 60_000
KEY_AGE_MAX_MS: Final = 15 * 60_000


@dataclass(frozen=True, slots=True, repr=False)
class _Known:
    key: DataKey
    made_at_ms: int
    block_digest: bytes
    has_escrow: bool
    made_s: float


@value
class _Last:
    # What the message before was opened with. Address and bundle are the very objects; with the block they are all that
    # a place in the cache is made of but the receiver's own key, which has opened it.
    address: Address
    block: bytes
    bundle: TrustBundle
    known: _Known


class Unwrapping:
    """Opens verified messages with one keyring."""

    def __init__(self, keyring: Keyring, *, ambient: Ambient) -> None:
        self._keyring = keyring
        self._ambient = ambient
        self._known: BoundedCache[_Known] = BoundedCache(total=KEYS_MAX, per_owner=KEYS_PER_SENDER, life_s=KEYS_LIFE_S)
        self._last: _Last | None = None
        self._own = (*keyring.decryption, *(rkid for keys in keyring.groups.values() for rkid in keys))

    def content(self, verified: Verified, bundle: TrustBundle) -> Content:
        """Return the content.

        Raises:
            AudienceError: There is no row for this identity, or none for the operators though the policy demands it.
            UnknownKeyError: The row is for a key that the bundle gives this identity, and the keyring lacks it.
            DecryptionError, MalformedError, UnsupportedError: The content cannot be opened or read.
        """
        content_key, block_digest = self._content_key(verified, bundle)
        parts = verified.parts
        return parse_content(
            suite.aead_open(content_key, parts.content, block_digest=block_digest, header=parts.header)
        )

    def opening(self, verified: Verified, bundle: TrustBundle) -> Callable[[], Content]:
        """Find the key, and return the rest of the work, which touches nothing but its values; raises as `content`."""
        return partial(_deciphered, verified, *self._content_key(verified, bundle))

    def _content_key(self, verified: Verified, bundle: TrustBundle) -> tuple[bytes, bytes]:
        """Return the message's own key, its commitment proven, and the digest of the key block."""
        header = verified.header
        now_s = self._ambient.monotonic_s()
        known, place = self._lately(verified, bundle, now_s), None
        if known is None:
            known, rkid = self._unwrapped(verified, bundle, now_s)
            place = self._place(verified, bundle, rkid)
        # A data key belongs to its time: an old one cannot be brought back to seal something new.
        if not -KEY_AHEAD_MAX_MS <= header.iat - known.made_at_ms <= KEY_AGE_MAX_MS:
            raise DecryptionError("the data key is not of the message's time", disposition=Disposition.CONTENT)
        if not known.has_escrow and not verified.archived and bundle.policy.demands_escrow(verified.kind):
            raise AudienceError(
                f"trust bundle version {bundle.version} demands that operators can read each {verified.kind.word}, and "
                f"{verified.sender!r} has not sealed it to them",
                disposition=Disposition.REFUSED,
                evidence=verified,
            )
        content_key, commitment = known.key.derive(header.salt, header.mid)
        if not suite.same(commitment, header.cmt):
            raise DecryptionError("the key commitment does not hold", disposition=Disposition.CONTENT)
        if place is not None:
            self._known.put(place, known, owner=verified.sender, now_s=now_s)
            self._last = _Last(header.address, verified.parts.block, bundle, known)
        return content_key, known.block_digest

    def _lately(self, verified: Verified, bundle: TrustBundle, now_s: float) -> _Known | None:
        last, address, block = self._last, verified.header.address, verified.parts.block
        if (
            last is not None
            and last.address is address
            and last.bundle is bundle
            and last.block == block
            and now_s - last.known.made_s < KEYS_LIFE_S
        ):
            return last.known
        for rkid in self._own:
            known = self._known.get(self._place(verified, bundle, rkid), now_s=now_s)
            if known is not None:
                self._last = _Last(address, block, bundle, known)
                return known
        return None

    def _place(self, verified: Verified, bundle: TrustBundle, rkid: bytes) -> tuple[object, ...]:
        address = verified.header.address
        return address.sender, address.skid, verified.parts.block, rkid, address.suite, bundle.generation

    def _unwrapped(self, verified: Verified, bundle: TrustBundle, now_s: float) -> tuple[_Known, bytes]:
        address = verified.header.address
        block = parse_block(verified.parts.block, suite=address.suite)
        row, key = self._row(block, verified, bundle)
        info = suite.wrap_info(
            suite=address.suite,
            sender=address.sender,
            skid=address.skid,
            rid=row.rid,
            rkid=row.rkid,
            dek_id=block.dek_id,
            made_at_ms=block.made_at_ms,
        )
        secret = key.unwrap(row.wrapped, info)
        digest = suite.sha256(verified.parts.block)
        return _Known(DataKey(secret), block.made_at_ms, digest, block.has(OPS_GROUP), now_s), row.rkid

    def _row(self, block: KeyBlock, verified: Verified, bundle: TrustBundle) -> tuple[Row, DecryptionKey]:
        identity, suite_id = self._keyring.service, verified.header.address.suite
        rows = [row for row in block.rows if bundle.is_addressed(identity, row.rid)]
        for row in rows:
            key = self._keyring.decryption_key(row.rid, row.rkid)
            # A key of another suite is none: what is wrapped to it here cannot be what the header says.
            if key is not None and key.suite == suite_id:
                return row, key
        if not rows:
            raise AudienceError(
                f"{verified.type!r} is not sealed to {identity!r}",
                disposition=Disposition.SKIPPED if verified.kind is Kind.EVENT else Disposition.REFUSED,
                evidence=verified,
            )
        missing = rows[0].rkid.hex()
        if any(bundle.gives(row.rid, row.rkid, suite=suite_id) for row in rows):
            raise UnknownKeyError(
                f"the keyring of {identity!r} lacks key {missing} of trust bundle version {bundle.version}; install "
                "the key file that was made with that bundle",
                disposition=Disposition.LOCAL,
                evidence=verified,
            )
        lags = (verified.bundle_version or 0) > bundle.version
        raise UnknownKeyError(
            f"{verified.type!r} is sealed to key {missing} of {identity!r}, which is neither in its keyring nor in use "
            f"in trust bundle version {bundle.version}",
            disposition=Disposition.LAG if lags else Disposition.CONTENT,
            evidence=verified,
        )


def _deciphered(verified: Verified, content_key: bytes, block_digest: bytes) -> Content:
    parts = verified.parts
    return parse_content(suite.aead_open(content_key, parts.content, block_digest=block_digest, header=parts.header))
