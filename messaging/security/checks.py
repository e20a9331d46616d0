"""The checks that every message passes, one function per step (docs/spec.md, "Order of checks").

A step that fails before the signature does not always end the work: an authentic message that is late, misplaced or
denied belongs elsewhere than a forgery, so its refusal is kept until the signature has spoken. What is not proven says
so: its error carries no evidence.
"""

from dataclasses import replace
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.envelope import Kind
from messaging.core.ids import id_of
from messaging.core.names import is_operator, owner_of
from messaging.core.topology import Names
from messaging.core.values import value
from messaging.errors import (
    ConfigurationError,
    Disposition,
    MalformedError,
    PolicyError,
    SealError,
    SignatureError,
    StaleMessageError,
    UnknownKeyError,
    UnsupportedError,
)
from messaging.security import merkle, suite
from messaging.security.bundle import KeyState, SigningEntry, TrustBundle
from messaging.security.cache import BoundedCache
from messaging.security.header import Address, Header
from messaging.security.header_reader import HeaderReader
from messaging.security.outer import CONTENT_MAX, Parts, split_parts
from messaging.security.trust import TrustStore
from messaging.security.verified import Verified

__all__ = ["Checks", "Claim", "Standing"]

CLOCK_SKEW_MS: Final = 60_000
ROOTS_MAX: Final = 4_096
ROOTS_PER_SENDER: Final = 256
ROOTS_LIFE_S: Final = 60.0
GRANTED_MAX: Final = 4_096
STANDINGS_MAX: Final = 2_048

_WRAPPING: Final = frozenset({Kind.FAULT, Kind.REPLAY})


@value
class Claim:
    """A well-formed message that nobody has vouched for yet."""

    body: bytes
    parts: Parts
    header: Header
    leaf: bytes | None = None

    def hashed(self) -> "Claim":
        """Return it with its leaf computed; touches nothing else, so it may run in a thread."""
        return Claim(self.body, self.parts, self.header, self.parts.leaf())

    def is_ahead_of(self, bundle: TrustBundle) -> bool:
        """Tell whether the sender says that its bundle is newer than ours: ours may be what is wrong."""
        return int(self.header.ext.get("bv", 0)) > bundle.version


@value
class Standing:
    """That a message with this address was accepted from this queue, under this bundle.

    Suite, place, sender, key, its state and policy depend on nothing else: the address holds all that they look at, and
    neither it nor a bundle ever changes. Of a further message with all of these the very same is asked only what is its
    own: its times, its path, its signature. Whatever else it is, all steps are taken anew.

    Attributes:
        address: The very object; headers of one opening share it.
        bundle: The very object: a newer one makes every standing void.
        kinds, queue: Where it was read from.
        entry: The sender's key.
    """

    address: Address
    bundle: TrustBundle
    kinds: frozenset[Kind]
    queue: str | None
    entry: SigningEntry


class Checks:
    """Steps 1 to 8 for one receiver.

    Args:
        trust: The bundle in force.
        names: The namespace.
        ambient: Gives the time.
        suites: Accepted suites; the bundle in force may accept fewer.
    """

    def __init__(self, trust: TrustStore, names: Names, *, ambient: Ambient, suites: frozenset[int]) -> None:
        self._trust = trust
        self._ambient = ambient
        self._headers = HeaderReader(names, suites)
        self._granted: set[tuple[bytes, Kind, str, str, str]] = set()
        # By the identity of the address, which lives as long as its entry.
        self._standings: dict[int, Standing] = {}
        self._roots: BoundedCache[bool] = BoundedCache(total=ROOTS_MAX, per_owner=ROOTS_PER_SENDER, life_s=ROOTS_LIFE_S)

    def bundle(self) -> TrustBundle:
        """Return the bundle in force.

        Raises:
            UnknownKeyError: There is none that may be relied on; a local trouble.
        """
        try:
            return self._trust.usable()
        except ConfigurationError as exc:
            raise UnknownKeyError(str(exc), disposition=Disposition.LOCAL) from exc

    def parse(self, body: bytes) -> Claim:
        """Steps 1 to 3: sizes, outer shape, header.

        Raises:
            MalformedError, UnsupportedError: Not a message in its one form, or of another version or suite.
        """
        parts = split_parts(body)
        header = self._headers.parse(parts.header)
        if len(parts.content) > CONTENT_MAX and header.address.kind not in _WRAPPING:
            raise MalformedError(f"the content has {len(parts.content)} bytes; at most {CONTENT_MAX} are allowed")
        return Claim(body, parts, header)

    def suite_refusal(self, claim: Claim, bundle: TrustBundle) -> SealError | None:
        """Step 3, its end: return why the suite may not be used. What only looks at old messages does not ask."""
        found = claim.header.address.suite
        if found in bundle.suites:
            return None
        return UnsupportedError(
            f"suite {found} is not among those of trust bundle version {bundle.version}: {list(bundle.suites)}",
            disposition=Disposition.LAG if claim.is_ahead_of(bundle) else Disposition.UNAUTHENTIC,
        )

    def check_suite(self, claim: Claim, bundle: TrustBundle) -> None:
        """Refuse a suite that the bundle in force does not accept, before anything else is asked.

        Raises:
            UnsupportedError: The bundle does not list it.
        """
        refusal = self.suite_refusal(claim, bundle)
        if refusal is not None:
            raise refusal

    def time_refusal(self, claim: Claim, bundle: TrustBundle) -> SealError | None:
        """Step 5: return why the message is not of now."""
        header, now_ms = claim.header, self._ambient.now_ms()
        if header.exp - header.iat > bundle.max_lifetime_ms:
            return StaleMessageError(
                f"its life is longer than the {bundle.max_lifetime_ms // 1000} s that the trust bundle allows",
                disposition=Disposition.REFUSED,
            )
        if now_ms > header.exp + CLOCK_SKEW_MS:
            return StaleMessageError("it has expired", disposition=Disposition.EXPIRED)
        return self.ahead_refusal(claim, now_ms=now_ms)

    def ahead_refusal(self, claim: Claim, *, now_ms: int) -> SealError | None:
        """Part of step 5 that nothing waives: return why the message is not of the future."""
        if claim.header.iat - CLOCK_SKEW_MS > now_ms:
            return StaleMessageError(
                "it was issued ahead of this machine's clock; check the clocks of both", disposition=Disposition.LAG
            )
        return None

    def entry(self, claim: Claim, bundle: TrustBundle) -> SigningEntry:
        """Step 6: return the sender's key as the bundle knows it.

        Raises:
            UnknownKeyError: There is no such sender or key.
        """
        address = claim.header.address
        entry = bundle.signing_entry(address.sender, address.skid)
        if entry is None:
            raise UnknownKeyError(
                f"no key {address.skid.hex()} of {address.sender!r} in trust bundle version {bundle.version}; if it is "
                "new, install the newer bundle",
                disposition=Disposition.LAG if claim.is_ahead_of(bundle) else Disposition.UNAUTHENTIC,
            )
        return entry

    def key_refusal(self, claim: Claim, entry: SigningEntry) -> SealError | None:
        """Step 6: return why the key may not be used; its state now decides, never the time a message claims."""
        if not entry.state.is_accepted:
            problem = f"is {entry.state.value}"
        elif not entry.covers(claim.header.iat):
            problem = "was not in use when the message was issued"
        else:
            return None
        return UnknownKeyError(
            f"key {entry.key.kid.hex()} of {claim.header.address.sender!r} {problem}", disposition=Disposition.REFUSED
        )

    def policy_refusal(self, claim: Claim, bundle: TrustBundle) -> SealError | None:
        """Step 7: return why the sender may not send this."""
        header = claim.header
        sender, kind, aud = header.address.sender, header.address.kind, header.address.aud
        # All that the answer depends on; the generation stands for the bundle's rules.
        place = (bundle.generation, kind, sender, header.name, aud)
        if place in self._granted:
            return None
        owner = owner_of(header.name)
        match kind:
            case Kind.COMMAND | Kind.REQUEST:
                allowed = bundle.policy.rule_for(sender, kind, header.name, owner) is not None
            case Kind.EVENT:
                allowed = sender == owner or bundle.policy.rule_for(sender, kind, header.name, owner) is not None
            case Kind.REPLAY:
                allowed = is_operator(sender) and bundle.policy.may_replay(sender, header.name, aud)
            case _:
                # Replies and faults are implied by the pending request and by the original that the fault embeds.
                allowed = True
        if allowed:
            if len(self._granted) >= GRANTED_MAX:
                self._granted.clear()
            self._granted.add(place)
            return None
        return PolicyError(
            f"trust bundle version {bundle.version} does not let {sender!r} send {kind.word} {header.name!r}",
            disposition=Disposition.LAG if claim.is_ahead_of(bundle) else Disposition.REFUSED,
        )

    def standing(
        self, header: Header, bundle: TrustBundle, kinds: frozenset[Kind], queue: str | None
    ) -> SigningEntry | None:
        """Return the sender's key when steps 3 to 7 are known to end well; None says only that they are to be taken."""
        address, iat, exp = header.address, header.iat, header.exp
        known = self._standings.get(id(address))
        if (
            known is None
            or known.address is not address
            or known.bundle is not bundle
            or known.queue != queue
            or known.kinds != kinds
        ):
            return None
        now_ms = self._ambient.now_ms()
        # Steps 5 and 6 for this message; see `time_refusal` and `key_refusal`.
        is_timely = exp - iat <= bundle.max_lifetime_ms and iat - CLOCK_SKEW_MS <= now_ms <= exp + CLOCK_SKEW_MS
        return known.entry if is_timely and known.entry.covers(iat) else None

    def note_standing(self, claim: Claim, bundle: TrustBundle, kinds: frozenset[Kind], queue: str | None) -> None:
        """Remember that a message of this address has passed every step, its signature included."""
        address = claim.header.address
        if len(self._standings) >= STANDINGS_MAX:
            self._standings.clear()
        self._standings[id(address)] = Standing(address, bundle, kinds, queue, self.entry(claim, bundle))

    def signed(self, claim: Claim, entry: SigningEntry, bundle: TrustBundle) -> Verified:
        """Step 8: path and signature.

        Raises:
            SignatureError: They do not hold.
        """
        parts, address = claim.parts, claim.header.address
        leaf = claim.leaf or parts.leaf()
        # The cache stands in for the curve operation alone: the path is always walked, key and state were looked up
        # anew, a grant is remembered under this very bundle. Single messages are not kept: none comes twice.
        root = merkle.root_of_path(leaf, parts.path, size=parts.size, index=parts.index)
        place = (address.sender, address.skid, parts.size, root, parts.signature, bundle.generation)
        now_s = self._ambient.monotonic_s()
        if parts.size == 1 or self._roots.get(place, now_s=now_s) is None:
            if not entry.key.holds(parts.signature, suite.root_statement(address.skid, parts.size, root)):
                raise SignatureError(f"the signature is not that of {address.sender!r}")
            if parts.size > 1:
                self._roots.put(place, True, owner=address.sender, now_s=now_s)
        header = claim.header
        return Verified(claim.body, parts, header, leaf, id_of(header.mid), entry.state)

    def concluded(self, claim: Claim, refusal: SealError | None, *, bundle: TrustBundle) -> Verified:
        """Steps 6 to 8, with the first refusal of the steps before: it is raised once the signature holds.

        Raises:
            SealError: The first step that failed; with evidence when the message is authentic.
        """
        entry = self.entry(claim, bundle)
        if entry.state is KeyState.COMPROMISED:
            # Whoever has the key could have signed this: the signature proves nothing.
            raise UnknownKeyError(f"key {entry.key.kid.hex()} of {claim.header.address.sender!r} is compromised")
        refusal = refusal or self.key_refusal(claim, entry) or self.policy_refusal(claim, bundle)
        verified = self.signed(claim, entry, bundle)
        if refusal is not None:
            refusal.evidence = replace(verified, accepted=False)
            raise refusal
        return verified
