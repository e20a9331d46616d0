"""`Opener`: sealed bytes become a verified message, a verified message an envelope (docs/spec.md, "Order of checks").

`verify` and `decrypt` are two steps because between them the inbox is asked whether the message has run before. Both
are plain computation. Every refusal is a `SealError` that says where the delivery goes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope, Kind
from messaging.core.ids import id_of
from messaging.core.topology import Names, Subscriptions
from messaging.errors import AudienceError, ConfigurationError, Disposition, PolicyError, SealError, UnknownKeyError
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.checks import Checks, Claim
from messaging.security.content import Content
from messaging.security.keyring import Keyring
from messaging.security.suite import SUITES, same
from messaging.security.trust import TrustStore
from messaging.security.unwrapping import Unwrapping
from messaging.security.verified import ExpectedReply, Verified, VerifiedDead

__all__ = ["REPLAY_WINDOW_MS", "Opener"]

REPLAY_WINDOW_MS: Final = 7 * 24 * 3_600_000

_REPLAYABLE: Final = frozenset({Kind.COMMAND, Kind.EVENT})
_BURIED_RAW: Final = frozenset({Kind.COMMAND, Kind.EVENT, Kind.REPLAY})
_KEPT: Final = frozenset({Disposition.LAG, Disposition.LOCAL})


class Opener:
    """Opens for one service or operator.

    Args:
        keyring: Its keys.
        trust: The bundle in force.
        names: The namespace.
        ambient: Gives the time.
        subscriptions: What the service handles.
        suites: Accepted suites, of those of the bundle in force.
    """

    def __init__(
        self,
        keyring: Keyring,
        trust: TrustStore,
        names: Names,
        *,
        ambient: Ambient,
        subscriptions: Subscriptions = Subscriptions(),  # noqa: B008 - a frozen value
        suites: frozenset[int] = SUITES,
    ) -> None:
        self._identity = keyring.service
        self._ambient = ambient
        self._events = frozenset(name for name, _ in subscriptions.events)
        self._names = names
        self._checks = Checks(trust, names, ambient=ambient, suites=suites)
        self._unwrapping = Unwrapping(keyring, ambient=ambient)
        self._peeked: Claim | None = None

    def verify(self, body: bytes, *, kinds: frozenset[Kind], queue: str | None = None) -> Verified:
        """Check a delivery up to its signature: steps 1 to 8.

        Args:
            body: The bytes as they came.
            kinds: The kinds that its queue carries.
            queue: The queue; a replay must name it.

        Raises:
            SealError: The first step that failed.
        """
        return self.verify_claim(self._checks.parse(body), kinds=kinds, queue=queue)

    def read(self, body: bytes) -> Claim:
        """Steps 1 to 3 of `verify`, for `verify_claim`: what is large is hashed in between, elsewhere.

        Raises:
            SealError: It is no message in its one form.
        """
        return self._checks.parse(body)

    def verify_claim(self, claim: Claim, *, kinds: frozenset[Kind], queue: str | None = None) -> Verified:
        """Steps 4 to 8 of `verify`, under the bundle that is in force now; raises as that does."""
        checks = self._checks
        bundle = checks.bundle()
        entry = checks.standing(claim.header, bundle, kinds, queue)
        if entry is not None:
            # The usual case: one like it was accepted before.
            return checks.signed(claim, entry, bundle)
        checks.check_suite(claim, bundle)
        refusal = self._place_refusal(claim, bundle, kinds, queue) or checks.time_refusal(claim, bundle)
        verified = checks.concluded(claim, refusal, bundle=bundle)
        checks.note_standing(claim, bundle, kinds, queue)
        return verified

    def decrypt(self, verified: Verified) -> Envelope:
        """Open a verified message: steps 10 to 14.

        Raises:
            SealError: It is not for this identity, or its content cannot be opened or read.
            ConfigurationError: The message was refused: it is kept as evidence, not for use.
        """
        if not verified.accepted:
            raise _unaccepted()
        content = self._unwrapping.content(verified, self._checks.bundle())
        return verified.envelope(payload=content.payload, codec=content.codec, headers=content.headers)

    def opening(self, verified: Verified) -> Callable[[], Envelope]:
        """Do all of `decrypt` but the cipher, and return that: it touches nothing else, so it may run in a thread.

        Raises:
            SealError: As `decrypt`; what is wrong with the content itself is raised by what this returns.
            ConfigurationError: As `decrypt`.
        """
        if not verified.accepted:
            raise _unaccepted()
        opened = self._unwrapping.opening(verified, self._checks.bundle())
        return lambda: _envelope_of(verified, opened())

    def peek_reply(self, body: bytes) -> UUID | None:
        """Return the request that a delivery claims to answer, or None when it is no reply.

        Nothing is proven by it: it finds the pending request whose `ExpectedReply` then decides.
        """
        try:
            self._peeked = self._checks.parse(body)
        except SealError:
            return None
        header = self._peeked.header
        if header.address.kind is not Kind.REPLY or header.corr is None:
            return None
        return id_of(header.corr)

    def peek_slot(self, body: bytes) -> int | None:
        """Return the slot that a delivery claims, or None when it claims none or is no message.

        Nothing is proven by it: it only decides behind which other deliveries this one waits.
        """
        try:
            slot: int | None = self._checks.parse(body).header.ext.get("slot")
        except SealError:
            return None
        return slot

    def verify_reply(self, body: bytes, expected: ExpectedReply) -> Verified:
        """Check that a delivery is the reply to one pending request (docs/spec.md, "Replies").

        Raises:
            SealError: It is not; the request stays pending.
        """
        checks = self._checks
        # The very object that was peeked at need not be parsed twice; bytes do not change.
        claim = self._peeked if self._peeked is not None and self._peeked.body is body else checks.parse(body)
        header, address = claim.header, claim.header.address
        answers = (
            address.kind is Kind.REPLY
            and header.corr == expected.mid
            and header.bind == expected.leaf
            and address.sender == expected.aud
            and address.typ == expected.typ
            and address.rk == expected.rto
            and address.aud == self._identity
        )
        if not answers:
            raise AudienceError(f"it is not the reply to the pending {expected.typ!r}")
        bundle = checks.bundle()
        checks.check_suite(claim, bundle)
        return checks.concluded(claim, checks.time_refusal(claim, bundle), bundle=bundle)

    def verify_own_original(self, original: bytes, fault: Verified) -> Verified:
        """Check that a fault is about a command that this service sent (docs/spec.md, "Faults").

        Args:
            original: The bytes that the opened fault embeds.
            fault: The fault, as `verify` returned it.

        Raises:
            SealError: The original is not this service's own, or not what the fault names; it is refused.
        """

        def refusal(claim: Claim, _bundle: TrustBundle) -> SealError | None:
            address = claim.header.address
            fits = (
                address.kind is Kind.COMMAND
                and address.sender == self._identity == fault.audience
                and address.aud == fault.sender
                and address.typ == fault.type
            )
            return None if fits else AudienceError("the fault is about a message that this service never sent")

        found = self._embedded(original, fault, refusal)
        if found.key_state is KeyState.COMPROMISED:
            raise UnknownKeyError("the original is under a compromised key", disposition=Disposition.REFUSED)
        return replace(found, archived=True)

    def verify_replayed(self, inner: bytes, outer: Verified, *, failed_before: bool, force: bool = False) -> Verified:
        """Check the original inside a replay like any message, with the differences of docs/spec.md, "Replays".

        Args:
            inner: The payload of the opened replay.
            outer: The replay, as `verify` returned it.
            failed_before: Whether the inbox holds this very message as failed.
            force: Whether the operator asks for what is done or too old.

        Raises:
            SealError: It may not run; the replay is refused.
        """

        def refusal(claim: Claim, bundle: TrustBundle) -> SealError | None:
            return (
                self._checks.suite_refusal(claim, bundle)
                or self._replay_place_refusal(claim, outer, bundle)
                or self._replay_time_refusal(claim, failed_before=failed_before, force=force)
                or self._replay_grant_refusal(claim, outer, bundle, force=force)
                or self._replay_key_refusal(claim, bundle, failed_before=failed_before)
                or self._checks.policy_refusal(claim, bundle)
            )

        return self._embedded(inner, outer, refusal)

    def verify_dead(self, body: bytes, *, service: str) -> VerifiedDead:
        """Check a message from a service's dead queue for reading; nothing is executed.

        Raises:
            SealError: It cannot be shown as verified.
        """
        checks = self._checks
        claim = checks.parse(body)
        bundle = checks.bundle()
        address = claim.header.address
        if address.kind is Kind.FAULT:
            fits = address.sender == service
        else:
            fits = address.kind in _BURIED_RAW and (
                address.aud == service
                or (address.kind is Kind.EVENT and service in bundle.policy.audience_of_event(claim.header.name))
            )
        if not fits:
            raise AudienceError(f"it does not belong into the dead letters of {service!r}")
        refusal = checks.policy_refusal(claim, bundle)
        if refusal is not None:
            raise refusal
        return VerifiedDead(letter=self._archived(claim, bundle), is_raw=address.kind is not Kind.FAULT)

    def verify_archived(self, original: bytes) -> Verified:
        """Check who signed a message, for reading: freshness, audience and policy are not asked.

        The state of the key is in the result, and a compromised one proves nothing.

        Raises:
            SealError: It is malformed, from nobody known, or its signature does not hold.
        """
        return self._archived(self._checks.parse(original), self._checks.bundle())

    def _archived(self, claim: Claim, bundle: TrustBundle) -> Verified:
        entry = self._checks.entry(claim, bundle)
        return replace(self._checks.signed(claim, entry, bundle), archived=True)

    def _embedded(
        self, inner: bytes, outer: Verified, refusal_of: Callable[[Claim, TrustBundle], SealError | None]
    ) -> Verified:
        # The delivery itself is authentic, so whatever is wrong inside is refused, never taken for a forgery.
        try:
            claim = self._checks.parse(inner)
            bundle = self._checks.bundle()
            entry = self._checks.entry(claim, bundle)
            if refusal := refusal_of(claim, bundle):
                raise refusal
            found = self._checks.signed(claim, entry, bundle)
            if not same(found.leaf, outer.bind or b""):
                raise AudienceError("what is embedded is not the message that it is bound to")
        except SealError as exc:
            exc.evidence = outer
            if exc.disposition not in _KEPT:
                exc.disposition = Disposition.REFUSED
            raise
        return found

    def _place_refusal(
        self, claim: Claim, bundle: TrustBundle, kinds: frozenset[Kind], queue: str | None
    ) -> SealError | None:
        address = claim.header.address
        if not self._is_mine(claim, bundle):
            return _misplaced(f"it is for {address.aud!r}, not for {self._identity!r}")
        if address.kind not in kinds:
            return _misplaced(f"a {address.kind.word} does not belong into this queue")
        if address.kind is Kind.REPLAY and queue is not None and address.rk != queue:
            return _misplaced(f"the replay is for queue {address.rk!r}")
        return None

    def _is_mine(self, claim: Claim, bundle: TrustBundle) -> bool:
        if claim.header.address.kind is not Kind.EVENT:
            return claim.header.address.aud == self._identity
        # Replicas of one service share the queue: what another replica subscribes is not misplaced, merely not
        # handled here.
        name = claim.header.name
        return name in self._events or self._identity in bundle.policy.audience_of_event(name)

    def _replay_place_refusal(self, claim: Claim, outer: Verified, bundle: TrustBundle) -> SealError | None:
        address = claim.header.address
        part = "events" if address.kind is Kind.EVENT else "commands"
        fits = (
            address.kind in _REPLAYABLE
            and address.typ == outer.type
            and outer.routing_key == self._names.queue(self._identity, part)
            and self._is_mine(claim, bundle)
        )
        return None if fits else _misplaced("the replayed message does not fit its replay")

    def _replay_time_refusal(self, claim: Claim, *, failed_before: bool, force: bool) -> SealError | None:
        now_ms = self._ambient.now_ms()
        if failed_before or force or now_ms - claim.header.iat <= REPLAY_WINDOW_MS:
            return self._checks.ahead_refusal(claim, now_ms=now_ms)
        return _misplaced("the replayed message is unknown here and older than 7 days; an operator may force it")

    def _replay_grant_refusal(
        self, claim: Claim, outer: Verified, bundle: TrustBundle, *, force: bool
    ) -> SealError | None:
        name = claim.header.name
        if bundle.policy.may_replay(outer.sender, name, self._identity, force=force):
            return None
        act = "force a replay of" if force else "replay"
        return PolicyError(
            f"trust bundle version {bundle.version} does not let {outer.sender!r} {act} {name!r}",
            disposition=Disposition.REFUSED,
        )

    def _replay_key_refusal(self, claim: Claim, bundle: TrustBundle, *, failed_before: bool) -> SealError | None:
        entry = self._checks.entry(claim, bundle)
        if entry.state is KeyState.RETIRED and failed_before:
            return None
        return self._checks.key_refusal(claim, entry)


def _misplaced(message: str) -> AudienceError:
    return AudienceError(message, disposition=Disposition.REFUSED)


def _unaccepted() -> ConfigurationError:
    return ConfigurationError("a refused message cannot be opened; open what verify() returned")


def _envelope_of(verified: Verified, content: Content) -> Envelope:
    return verified.envelope(payload=content.payload, codec=content.codec, headers=content.headers)
