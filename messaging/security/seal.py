"""`Sealer`: an envelope becomes sealed bytes (docs/spec.md, "Bytes", "Signature", "Data keys").

Two steps, because one signature serves many messages: `prepare` does everything for one message but the signature,
`sign` signs a batch. Only here do `Sealed` bytes come into being; there is no way to send anything else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope, Kind
from messaging.core.names import is_operator, owner_of
from messaging.core.sealed import Sealed
from messaging.core.topology import Names
from messaging.core.values import value
from messaging.errors import ConfigurationError, MalformedError, MessageTooLargeError, NotYetUsableError, PolicyError
from messaging.security import merkle, suite
from messaging.security.audit import pack_record
from messaging.security.bundle import OPS_GROUP, SigningEntry, TrustBundle, missing_keys
from messaging.security.content import pack_content
from messaging.security.datakeys import SendKey, SendKeys
from messaging.security.header import HASH_BYTES, Address, check_address, is_reply_queue
from messaging.security.header_writer import write_header
from messaging.security.keyring import Keyring
from messaging.security.keys import SigningKey
from messaging.security.outer import CONTENT_MAX, CONTENT_MAX_WRAPPING, batch_share, join_shared
from messaging.security.policy import Policy
from messaging.security.trust import TrustStore

__all__ = ["Sealer", "Unsigned", "restored"]

_WAYS_MAX: Final = 1_024
_WAYS_LIFE_S: Final = 60.0
# Kinds that answer nothing, wrap nothing and await nothing.
_BARE: Final = frozenset({Kind.COMMAND, Kind.EVENT})
_WITH_BIND: Final = frozenset({Kind.REPLY, Kind.FAULT, Kind.REPLAY})
_WRAPPING: Final = frozenset({Kind.FAULT, Kind.REPLAY})


@value
class Unsigned:
    """A sealed message that waits for its signature.

    Attributes:
        header: Header bytes.
        block: Key block bytes.
        content: Ciphertext.
        leaf: What replies and faults will name it by, 32 bytes.
        signer: The key that has to sign it.
    """

    header: bytes
    block: bytes
    content: bytes
    leaf: bytes
    signer: SigningKey

    @property
    def size_bytes(self) -> int:
        """Size of the sealed message, less the few bytes of its frame."""
        return len(self.header) + len(self.block) + len(self.content)

    def __repr__(self) -> str:
        return f"Unsigned({self.leaf.hex()}, {self.size_bytes} bytes)"


@dataclass(slots=True)
class _Way:
    # What all messages of one type to one place share: the policy has said yes, the recipients are known. The data key
    # is the last one that served here, and judges itself whether it serves once more. The signing key has times of its
    # own: what is issued outside them no receiver accepts, so the way is found anew then.
    opening: bytes
    recipients: tuple[str, ...]
    signer: SigningKey
    entry: SigningEntry
    data_key: SendKey | None = None


class Sealer:
    """Seals for one service or operator.

    Args:
        keyring: Its keys.
        trust: The bundle in force.
        names: The namespace.
        ambient: Gives the time.
    """

    def __init__(self, keyring: Keyring, trust: TrustStore, names: Names, *, ambient: Ambient) -> None:
        self._keyring = keyring
        self._trust = trust
        self._names = names
        self._ambient = ambient
        self._data_keys = SendKeys(keyring.service, ambient=ambient)
        self._ways: dict[tuple[Kind, str, int, str, str], _Way] = {}
        self._ways_of: bytes = b""
        self._ways_born_s = 0.0

    def longest_life_ms(self) -> int:
        """Return how long a message may live from now on, milliseconds.

        Raises:
            ConfigurationError: There is no trust bundle to ask.
        """
        return self._trust.usable().max_lifetime_ms

    def recipients(self, envelope: Envelope) -> tuple[str, ...]:
        """Return who will be able to read it; nobody when it is an event without subscribers.

        Raises:
            ConfigurationError: There is no trust bundle to ask.
        """
        return _recipients(envelope, self._trust.for_sending())

    def prepare(self, envelope: Envelope, *, routing_key: str) -> Unsigned:
        """Encrypt a message; only its signature is missing.

        Args:
            envelope: Complete, with this service as its sender.
            routing_key: Routing key of the first publish.

        Raises:
            PolicyError: The policy does not allow it; the message says which rule would.
            NotYetUsableError: It does since a moment ago; the message says when the rule is used.
            ConfigurationError: The envelope contradicts itself, or the bundle lacks a key.
            MessageTooLargeError: The payload is beyond the cap.
        """
        return _enclosed(*self._parts(envelope, routing_key))

    def begin(self, envelope: Envelope, *, routing_key: str) -> Callable[[], Unsigned]:
        """Do all of `prepare` but cipher and hash, and return those: they touch nothing else, so a thread may do them.

        Raises as `prepare`.
        """
        return partial(_enclosed, *self._parts(envelope, routing_key))

    def _parts(self, envelope: Envelope, routing_key: str) -> tuple[bytes, bytes, bytes, SendKey, SigningKey]:
        """Return the message's own key, its plaintext and header, the data key, and who signs."""
        if envelope.sender != self._keyring.service:
            raise ConfigurationError(f"{self._keyring.service!r} cannot seal a message of {envelope.sender!r}")
        bundle = self._trust.for_sending()
        _check_envelope(envelope, bundle, self._names)
        now_s = self._ambient.monotonic_s()
        way = self._way(envelope, routing_key, bundle, now_s)
        plaintext = pack_content(codec=envelope.codec, headers=envelope.headers, payload=envelope.payload)
        limit = CONTENT_MAX_WRAPPING if envelope.kind in _WRAPPING else CONTENT_MAX
        size = len(plaintext) + suite.TAG_BYTES
        if size > limit:
            raise MessageTooLargeError(
                f"{envelope.type} has {size} bytes, at most {limit} are possible: store the large part elsewhere and "
                "send a reference"
            )
        data_key = way.data_key
        if data_key is None or not data_key.takes(bundle.generation, envelope.issued_at_ms, now_s, size):
            data_key = way.data_key = self._data_keys.take(
                way.recipients, signer=way.signer, bundle=bundle, issued_at_ms=envelope.issued_at_ms, size=size
            )
        mid, salt = envelope.id.bytes, suite.fresh_bytes(16)
        content_key, commitment = data_key.key.derive(salt, mid)
        header = write_header(envelope, way.opening, mid, salt, commitment, bundle.version)
        return content_key, plaintext, header, data_key, way.signer

    def attest(self, fields: Mapping[str, object]) -> Sealed:
        """Return a signed record of what was done; it is not encrypted (`security.audit`).

        Raises:
            ConfigurationError: No signing key is active, or the record is too large.
        """
        keyring = self._keyring
        signer, _ = self._signer(self._trust.for_sending(), self._ambient.now_ms())
        return Sealed(pack_record(fields, by=keyring.service, realm=keyring.realm, signer=signer))

    def sign(self, batch: Sequence[Unsigned]) -> list[Sealed]:
        """Sign a batch and return its messages in order.

        Args:
            batch: 1 to 128 messages; one signature, or one more when a rotation of keys falls into it.

        Raises:
            ValueError: The batch is empty or too large.
        """
        if not 1 <= len(batch) <= merkle.BATCH_MAX:
            raise ValueError(f"a batch has 1 to {merkle.BATCH_MAX} messages, not {len(batch)}")
        if len({unsigned.signer for unsigned in batch}) == 1:
            return _signed(batch)
        groups: dict[bytes, list[int]] = {}
        for at, unsigned in enumerate(batch):
            groups.setdefault(unsigned.signer.kid, []).append(at)
        sealed: dict[int, Sealed] = {}
        for places in groups.values():
            sealed.update(zip(places, _signed([batch[at] for at in places]), strict=True))
        return [sealed[at] for at in range(len(batch))]

    def seal(self, envelope: Envelope, *, routing_key: str) -> Sealed:
        """Prepare and sign one message; raises as `prepare` does."""
        return self.sign([self.prepare(envelope, routing_key=routing_key)])[0]

    def _way(self, envelope: Envelope, routing_key: str, bundle: TrustBundle, now_s: float) -> _Way:
        if (
            self._ways_of != bundle.generation
            or now_s - self._ways_born_s > _WAYS_LIFE_S
            or len(self._ways) >= _WAYS_MAX
        ):
            self._ways.clear()
            self._ways_of, self._ways_born_s = bundle.generation, now_s
        place = (envelope.kind, envelope.name, envelope.version, envelope.audience, routing_key)
        found = self._ways.get(place)
        if found is None or not found.entry.covers(envelope.issued_at_ms):
            found = self._ways[place] = self._found_way(envelope, routing_key, bundle)
        return found

    def _found_way(self, envelope: Envelope, routing_key: str, bundle: TrustBundle) -> _Way:
        signer, entry = self._signer(bundle, envelope.issued_at_ms)
        address = Address(
            suite=bundle.suite,
            kind=envelope.kind,
            typ=envelope.type,
            sender=envelope.sender,
            skid=signer.kid,
            aud=envelope.audience,
            ex=self._names.exchange_of(envelope.kind, envelope.audience),
            rk=routing_key,
        )
        try:
            check_address(address, self._names)
        except MalformedError as exc:
            raise ConfigurationError(
                f"{envelope.kind.word} {envelope.type!r} to {envelope.audience!r} by {routing_key!r}: {exc}"
            ) from exc
        recipients = _recipients(envelope, bundle)
        _check_recipients(envelope, recipients, bundle)
        self._check_policy(envelope, bundle)
        return _Way(address.pack(), recipients, signer, entry)

    def _check_policy(self, envelope: Envelope, bundle: TrustBundle) -> None:
        if _is_allowed(envelope, bundle.policy):
            return
        current = self._trust.current
        if _is_allowed(envelope, current.policy):
            raise NotYetUsableError(
                f"trust bundle version {current.version} lets {envelope.sender!r} send {envelope.kind.word} "
                f"{envelope.name!r}, but is so new that some receivers may not have it: the rule is used in "
                f"{self._trust.settles_in_s():.0f} s"
            )
        raise PolicyError(_denial(envelope, bundle))

    def _signer(self, bundle: TrustBundle, at_ms: int) -> tuple[SigningKey, SigningEntry]:
        """Return the key for what is issued at a time, and what the bundle says of it."""
        identity = self._keyring.service
        active = bundle.active_signing_ids(identity, now_ms=at_ms)
        for key in self._keyring.signing:
            if key.kid in active:
                return key, bundle.signing[identity][key.kid]
        raise ConfigurationError(
            f"no signing key in the keyring of {identity!r} is active in trust bundle version "
            f"{bundle.version}; install key file and bundle of the same rotation"
        )


def _enclosed(content_key: bytes, plaintext: bytes, header: bytes, data_key: SendKey, signer: SigningKey) -> Unsigned:
    # Of the data key only what never changes is read: its block and the block's digest.
    content = suite.aead_seal(content_key, plaintext, block_digest=data_key.block_digest, header=header)
    leaf = suite.leaf_of_parts(header, data_key.block_digest, content)
    return Unsigned(header, data_key.block, content, leaf, signer)


def _signed(batch: Sequence[Unsigned]) -> list[Sealed]:
    root, paths = merkle.paths([unsigned.leaf for unsigned in batch])
    signer, size = batch[0].signer, len(batch)
    share = batch_share(signer.sign(suite.root_statement(signer.kid, size, root)), size)
    return [
        Sealed(join_shared(one.header, one.block, one.content, share, index, path))
        for index, (one, path) in enumerate(zip(batch, paths, strict=True))
    ]


def _recipients(envelope: Envelope, bundle: TrustBundle) -> tuple[str, ...]:
    policy = bundle.policy
    match envelope.kind:
        case Kind.EVENT:
            readers = set(policy.audience_of_event(envelope.name))
            if not readers:
                return ()
        case Kind.FAULT:
            readers = {envelope.sender, envelope.audience}
            if bundle.encryption.get(OPS_GROUP):
                readers.add(OPS_GROUP)
        case _:
            readers = {envelope.audience}
    if policy.demands_escrow(envelope.kind):
        readers.add(OPS_GROUP)
    return tuple(sorted(readers))


def _check_recipients(envelope: Envelope, recipients: tuple[str, ...], bundle: TrustBundle) -> None:
    if not recipients:
        raise ConfigurationError(
            f"event {envelope.name!r} has no subscriber in policy.subscribe of trust bundle version {bundle.version}: "
            "there is nobody to seal it to"
        )
    unknown = [rid for rid in recipients if rid not in bundle.encryption]
    if unknown:
        raise ConfigurationError(missing_keys(unknown[0], bundle))


def _is_allowed(envelope: Envelope, policy: Policy) -> bool:
    sender, name, to = envelope.sender, envelope.name, owner_of(envelope.name)
    match envelope.kind:
        case Kind.COMMAND | Kind.REQUEST:
            return policy.rule_for(sender, envelope.kind, name, to) is not None
        case Kind.EVENT:
            return sender == to or policy.rule_for(sender, envelope.kind, name, to) is not None
        case Kind.REPLAY:
            return is_operator(sender) and policy.may_replay(sender, name, envelope.audience)
        case _:
            # Replies and faults are implied by the request that is answered and by the message that failed.
            return True


def _denial(envelope: Envelope, bundle: TrustBundle) -> str:
    sender, name = envelope.sender, envelope.name
    if envelope.kind is Kind.REPLAY:
        return (
            f"policy of trust bundle version {bundle.version} does not let {sender!r} replay {name!r} in "
            f'{envelope.audience!r}; only operators may: add {{"operator": "ops:…", "name": "{name}", '
            f'"to": "{envelope.audience}", "force": false}} to policy.replay and sign the bundle'
        )
    return (
        f"trust bundle version {bundle.version} does not let {sender!r} send {envelope.kind.word} {name!r}; add "
        f'{{"from": "{sender}", "kind": "{envelope.kind.word}", "name": "{name}", "to": "{owner_of(name)}"}} '
        "to policy.send and sign the bundle"
    )


def _check_envelope(envelope: Envelope, bundle: TrustBundle, names: Names) -> None:
    kind = envelope.kind
    life_ms = envelope.expires_at_ms - envelope.issued_at_ms
    if envelope.issued_at_ms < 0 or not 0 < life_ms <= bundle.max_lifetime_ms:
        raise ConfigurationError(
            f"{envelope.type} would live {life_ms} ms; it must expire after it is issued and within "
            f"{bundle.max_lifetime_ms // 1000} s (max_lifetime_s of the trust bundle)"
        )
    if envelope.bind is None and envelope.reply_to is None and kind in _BARE:
        return
    if (0 if envelope.bind is None else len(envelope.bind)) != (HASH_BYTES if kind in _WITH_BIND else 0):
        raise ConfigurationError(f"{kind.word} {envelope.type}: bind is the 32-byte leaf of what it answers or wraps")
    if kind is not Kind.REQUEST and envelope.reply_to is not None:
        raise ConfigurationError(f"{kind.word} {envelope.type}: only a request names a reply queue")
    if kind is Kind.REQUEST and not is_reply_queue(envelope.reply_to or "", envelope.sender, names):
        raise ConfigurationError(f"{kind.word} {envelope.type}: reply_to must be a reply queue of {envelope.sender!r}")
    if kind is Kind.REPLY and envelope.correlation_id is None:
        raise ConfigurationError(f"{kind.word} {envelope.type}: correlation_id is the id of the request")


def restored(body: bytes) -> Sealed:
    """Return bytes that this service sealed before and kept in its own outbox, as what they are.

    The outbox holds nothing else: its only writer takes `Sealed` values. Were the database tampered with, every
    receiver would refuse the bytes, so nothing is checked twice here.
    """
    return Sealed(body)
