"""The bytes of a trust bundle: verified before they are parsed, parsed strictly, signed by roots (docs/trust.md)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from messaging.core.envelope import Kind
from messaging.core.names import is_message_name, is_operator, is_sender, is_service, owner_of
from messaging.errors import ConfigurationError, MalformedError
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP, EncryptionEntry, KeyState, SigningEntry, TrustBundle
from messaging.security.keyblock import is_recipient
from messaging.security.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, EncryptionKey, SigningKey, VerifyKey
from messaging.security.packed import pack, unpack
from messaging.security.policy import Escrow, Policy, ReplayGrant, Rule, is_pattern
from messaging.security.strict_json import Fields, dump_json, load_json

__all__ = [
    "BUNDLE_MAX",
    "DEVELOPMENT_REALM",
    "add_signature",
    "check_realm",
    "parse_content",
    "sign_bundle",
    "signers_of",
    "split_bundle",
    "verify_bundle",
]

BUNDLE_MAX: Final = 16 * 1024 * 1024
SIGNATURES_MAX: Final = 64
SUBSCRIBERS_MAX: Final = 16
LIFETIME_MAX_S: Final = 30 * 24 * 3600
REALM_MAX: Final = 64
DEVELOPMENT_REALM: Final = "dev-"

_STATEMENT: Final = suite.LABEL + b"bundle\0"
# First and last algorithm that a key of a role may have.
_SIGN: Final = (suite.ED25519, suite.ED25519)
_ENCRYPT: Final = (suite.X25519, suite.XWING)
_RULE_KINDS: Final = {kind.word: kind for kind in (Kind.COMMAND, Kind.EVENT, Kind.REQUEST)}
_STATES: Final = {state.value: state for state in KeyState if state is not KeyState.COMPROMISED}
_REVOKED: Final = {"compromise": KeyState.COMPROMISED, "retired": KeyState.RETIRED}
_Entry = TypeVar("_Entry", SigningEntry, EncryptionEntry)


def sign_bundle(payload: Mapping[str, object], roots: Sequence[SigningKey]) -> bytes:
    """Return the bytes of a bundle.

    Args:
        payload: The content, as docs/trust.md lays it out.
        roots: The root keys that sign.
    """
    content = dump_json(payload)
    return pack([content, [[root.kid, root.sign(_STATEMENT + content)] for root in roots]])


def verify_bundle(raw: bytes, *, roots: Sequence[VerifyKey], threshold: int, realm: str) -> TrustBundle:
    """Return the bundle that the bytes hold.

    Args:
        raw: Content of `trust.bundle`.
        roots: The pinned root keys.
        threshold: How many of them must have signed.
        realm: The realm it must be for.

    Raises:
        ConfigurationError: Not signed by enough roots, not strictly in form, or for another realm.
    """
    return parse_content(_verified_content(raw, roots, threshold), roots=roots, realm=realm)


def split_bundle(raw: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return content and signatures by root key id of a bundle or a draft; nothing about them is proven.

    Raises:
        ConfigurationError: Not the form of a bundle.
    """
    if len(raw) > BUNDLE_MAX:
        raise ConfigurationError(f"the trust bundle has {len(raw)} bytes; at most {BUNDLE_MAX} are read")
    try:
        outer = unpack(raw, what="trust bundle", array_max=SIGNATURES_MAX, text_max=0, bytes_max=BUNDLE_MAX)
    except MalformedError as exc:
        raise ConfigurationError(f"{exc}; fetch trust.bundle again") from exc
    if not (type(outer) is list and [type(part) for part in outer] == [bytes, list]):
        raise ConfigurationError("the trust bundle is no pair of content and signatures; fetch trust.bundle again")
    content, entries = outer
    if not all(type(entry) is list and [type(part) for part in entry] == [bytes, bytes] for entry in entries):
        raise ConfigurationError("the trust bundle has a signature of the wrong form; fetch trust.bundle again")
    return bytes(content), {bytes(kid): bytes(signature) for kid, signature in entries}


def add_signature(raw: bytes, root: SigningKey) -> bytes:
    """Return a bundle or draft with one more signature over its content."""
    content, signatures = split_bundle(raw)
    signatures[root.kid] = root.sign(_STATEMENT + content)
    return pack([content, [[kid, signature] for kid, signature in signatures.items()]])


def signers_of(raw: bytes, roots: Sequence[VerifyKey]) -> tuple[VerifyKey, ...]:
    """Return those of the roots that signed a bundle or draft.

    Raises:
        ConfigurationError: Not the form of a bundle, or a signature in the name of one of these roots does not hold.
    """
    content, signatures = split_bundle(raw)
    for root in roots:
        signature = signatures.get(root.kid)
        if signature is not None and not _holds(root, signature, content):
            raise ConfigurationError(
                f"the signature of root key {root.kid.hex()} on the trust bundle does not hold; fetch trust.bundle "
                "again"
            )
    return tuple(root for root in roots if root.kid in signatures)


def parse_content(content: bytes, *, roots: Sequence[VerifyKey], realm: str) -> TrustBundle:
    """Return the bundle that a content would be, signed or not: drafts are as strict as bundles.

    Raises:
        ConfigurationError: Not strictly in form, or for another realm.
    """
    return _Parser(load_json(content, "the trust bundle"), roots, realm, suite.sha256(content)).bundle()


def check_realm(realm: str) -> str:
    """Return the realm if it may name one.

    Raises:
        ConfigurationError: It may not.
    """
    if not (realm.isascii() and realm.isprintable() and 0 < len(realm) <= REALM_MAX):
        raise ConfigurationError(f"{realm!r} cannot name a realm: use 1 to {REALM_MAX} printable ASCII characters")
    return realm


def _verified_content(raw: bytes, roots: Sequence[VerifyKey], threshold: int) -> bytes:
    content, _ = split_bundle(raw)
    signers = {root.kid for root in signers_of(raw, roots)}
    if len(signers) < max(threshold, 1):
        raise ConfigurationError(
            f"the trust bundle is signed by {len(signers)} of the root keys that this key file pins, {threshold} are "
            "needed: it is of another installation or has been altered; fetch trust.bundle and the key file together"
        )
    return content


def _holds(root: VerifyKey, signature: bytes, content: bytes) -> bool:
    return len(signature) == SIGNATURE_BYTES and root.holds(signature, _STATEMENT + content)


class _Parser:
    """Reads one payload; keeps every key it has seen, so that none serves twice."""

    def __init__(self, fields: Fields, roots: Sequence[VerifyKey], realm: str, generation: bytes) -> None:
        self._fields = fields
        self._realm = realm
        self._generation = generation
        self._seen: set[bytes] = {root.raw for root in roots}
        self._revoked: dict[bytes, KeyState] = {}

    def bundle(self) -> TrustBundle:
        fields = self._fields
        realm = fields.text("realm")
        if realm != self._realm:
            fields.refuse(f"it is for realm {realm!r}, this key file for {self._realm!r}; use the files of one realm")
        development = fields.boolean("dev")
        if development != realm.startswith(DEVELOPMENT_REALM):
            fields.refuse(f"only realms that begin with {DEVELOPMENT_REALM!r} are for development, and all of them are")
        version = fields.integer("version", lowest=1)
        issued_at_ms = fields.integer("issued")
        expires_at_ms = fields.integer("expires", lowest=issued_at_ms + 1)
        suites = self._suites()
        max_lifetime_ms = 1000 * fields.integer("max_lifetime_s", lowest=1, highest=LIFETIME_MAX_S)
        self._read_revoked()
        signing: dict[str, dict[bytes, SigningEntry]] = {}
        encryption: dict[str, tuple[EncryptionEntry, ...]] = {}
        self._read_identities("services", is_service, signing, encryption)
        self._read_identities("operators", is_operator, signing, encryption)
        members = self._read_groups(frozenset(signing), encryption)
        policy = self._policy(frozenset(signing))
        fields.end()
        if policy.escrow != Escrow() and not encryption.get(OPS_GROUP):
            fields.refuse(f"policy demands escrow, and there is no key of {OPS_GROUP!r} to seal to; add the group")
        return TrustBundle(
            realm=realm, is_development=development, version=version, issued_at_ms=issued_at_ms,
            expires_at_ms=expires_at_ms, suites=suites, max_lifetime_ms=max_lifetime_ms, signing=signing,
            encryption=encryption, members=members, policy=policy, generation=self._generation,
        )  # fmt: skip

    def _suites(self) -> tuple[int, ...]:
        suites = self._fields.items("suites")
        known = all(type(number) is int and number in suite.SUITES for number in suites)
        if not suites or not known or len(set(suites)) != len(suites):
            self._fields.refuse(f"suites are {suites!r}; name one or more of {sorted(suite.SUITES)}, each once")
        return tuple(suites)

    def _read_revoked(self) -> None:
        for entry in self._fields.objects("revoked"):
            kid = entry.octets("kid", 8)
            entry.integer("at")
            reason = entry.text("reason")
            entry.end()
            if reason not in _REVOKED or kid in self._revoked:
                entry.refuse("a key is revoked once, for the reason 'compromise' or 'retired'")
            self._revoked[kid] = _REVOKED[reason]

    def _read_identities(
        self,
        section: str,
        is_valid: Callable[[str], bool],
        signing: dict[str, dict[bytes, SigningEntry]],
        encryption: dict[str, tuple[EncryptionEntry, ...]],
    ) -> None:
        listed = self._fields.object(section)
        for name in listed.names():
            if not is_valid(name):
                listed.refuse(f"{name!r} breaks the grammar of names")
            entry = listed.object(name)
            signing[name] = {
                found.key.kid: found for found in self._keys(entry, "sign", _SIGN, VerifyKey, SigningEntry)
            }
            encryption[name] = self._keys(entry, "enc", _ENCRYPT, EncryptionKey, EncryptionEntry)
            entry.end()

    def _read_groups(
        self, known: frozenset[str], encryption: dict[str, tuple[EncryptionEntry, ...]]
    ) -> dict[str, frozenset[str]]:
        listed = self._fields.object("groups")
        members: dict[str, frozenset[str]] = {}
        for name in listed.names():
            if not name.startswith("group:") or not is_recipient(name):
                listed.refuse(f"{name!r} cannot name a group: use group: and a service-like name")
            entry = listed.object(name)
            encryption[name] = self._keys(entry, "enc", _ENCRYPT, EncryptionKey, EncryptionEntry)
            members[name] = frozenset(entry.texts("members"))
            self._check_known(entry, members[name], known)
            entry.end()
        return members

    def _keys(
        self,
        owner: Fields,
        section: str,
        algorithms: tuple[int, int],
        key_type: Callable[..., Any],
        entry_type: Callable[..., _Entry],
    ) -> tuple[_Entry, ...]:
        return tuple(self._key(entry, algorithms, key_type, entry_type) for entry in owner.objects(section))

    def _key(
        self,
        fields: Fields,
        algorithms: tuple[int, int],
        key_type: Callable[..., Any],
        entry_type: Callable[..., _Entry],
    ) -> _Entry:
        algorithm = fields.integer("alg", lowest=algorithms[0], highest=algorithms[1])
        kid, raw = fields.octets("kid", 8), fields.octets("pub", PUBLIC_KEY_BYTES[algorithm])
        state, first, last = (
            fields.text("state"), fields.optional_integer("not_before"), fields.optional_integer("not_after")
        )  # fmt: skip
        fields.end()
        key: Any = key_type(raw, realm=self._realm)
        if key.kid != kid:
            fields.refuse(f"key id {kid.hex()} is not that of its key, {key.kid.hex()}")
        if state not in _STATES:
            fields.refuse(f"state {state!r} is not among {', '.join(_STATES)}")
        # A key inside a hybrid one counts as itself: X25519 of suite 1 is no half of suite 2.
        if not self._seen.isdisjoint((kid, *key.parts)):
            fields.refuse(f"key {kid.hex()} serves twice; every role of every service has a key of its own")
        self._seen |= {kid, *key.parts}
        # A revocation outranks the state: it may have been added by somebody who could not change the entry.
        current = self._revoked.get(kid, _STATES[state])
        return entry_type(key=key, state=current, not_before_ms=first, not_after_ms=last)

    def _policy(self, known: frozenset[str]) -> Policy:
        fields = self._fields.object("policy")
        rules = tuple(self._rule(entry, known) for entry in fields.objects("send"))
        grants = tuple(self._grant(entry, known) for entry in fields.objects("replay"))
        subscribe = self._subscribe(fields.object("subscribe"), known)
        flags = fields.object("escrow")
        escrow = Escrow(**{kind: flags.boolean(kind) for kind in ("command", "event", "request", "reply")})
        flags.end()
        fields.end()
        return Policy(rules=rules, subscribe=subscribe, escrow=escrow, replay=grants)

    def _rule(self, fields: Fields, known: frozenset[str]) -> Rule:
        sender, kind, name, to = (fields.text(key) for key in ("from", "kind", "name", "to"))
        fields.end()
        if kind not in _RULE_KINDS or not is_sender(sender):
            fields.refuse("a rule is from a service or operator, for a command, event or request")
        if not is_pattern(name) or owner_of(name) != to:
            fields.refuse(f"{name!r} is no message name or prefix.* of service {to!r}")
        self._check_known(fields, (sender, to), known)
        return Rule(sender=sender, kind=_RULE_KINDS[kind], name=name, to=to)

    def _grant(self, fields: Fields, known: frozenset[str]) -> ReplayGrant:
        operator, name, to = (fields.text(key) for key in ("operator", "name", "to"))
        force = fields.boolean("force")
        fields.end()
        if not is_operator(operator) or not is_pattern(name) or not is_service(to):
            fields.refuse("a replay grant is for an operator, a message name or prefix.*, and a service")
        self._check_known(fields, (operator, to), known)
        return ReplayGrant(operator=operator, name=name, to=to, force=force)

    def _subscribe(self, fields: Fields, known: frozenset[str]) -> dict[str, tuple[str, ...]]:
        subscribe: dict[str, tuple[str, ...]] = {}
        for name in fields.names():
            services = fields.texts(name)
            if not is_message_name(name) or not all(is_service(service) for service in services):
                fields.refuse(f"subscribe has services by message name, not {name!r}")
            if len(services) > SUBSCRIBERS_MAX:
                fields.refuse(f"event {name!r} has {len(services)} subscribers; at most {SUBSCRIBERS_MAX} are possible")
            self._check_known(fields, services, known)
            subscribe[name] = services
        return subscribe

    def _check_known(self, fields: Fields, identities: Iterable[str], known: frozenset[str]) -> None:
        for identity in identities:
            if identity not in known:
                fields.refuse(f"{identity!r} has no keys in this bundle; add them, or remove what names it")
