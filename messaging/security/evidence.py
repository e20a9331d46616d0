"""Proof of who said what, for people who hold no key: looking at sealed bytes, opening one message, evidence files.

A signature covers transported bytes, so whoever has the trust bundle of that day can check who sent a message without
being able to read it. The key of one message opens that one and lets nobody forge, so it may be given to an auditor:
the commitment in the signed header ties it to the message (docs/spec.md, "Keys").

An evidence file is strict JSON that needs nothing else: the sealed bytes, the signed bundle, the roots that it is
checked with, and the message's key if the content is to be shown. What it cannot prove by itself is that those are the
right roots: their fingerprint is for people to compare.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from messaging.core.topology import Names
from messaging.errors import (
    AudienceError,
    ConfigurationError,
    DecryptionError,
    Disposition,
    MalformedError,
    SignatureError,
    UnknownKeyError,
)
from messaging.security import merkle, suite
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.content import Content, parse_content
from messaging.security.header import Header, parse_header
from messaging.security.keyblock import KeyBlock, parse_block
from messaging.security.keyring import Keyring
from messaging.security.outer import Parts, split_parts
from messaging.security.packed import unpack
from messaging.security.roots import Pins, pins_of
from messaging.security.strict_json import Fields, dump_json, load_json

__all__ = [
    "Evidence",
    "Judgement",
    "Sighting",
    "bundle_of_time",
    "judge",
    "look_at",
    "message_key",
    "open_with",
    "pack_evidence",
    "parse_evidence",
    "prove",
]

VERSION: Final = 1
EVIDENCE_MAX_BYTES: Final = 64 * 1024 * 1024
MESSAGE_KEY_BYTES: Final = 32
GRACE_MS: Final = 24 * 3_600_000
SKEW_MS: Final = 60_000
_EXCHANGE_AT: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sighting:
    """What sealed bytes say of themselves; nothing is proven by it.

    Attributes:
        body: The bytes.
        parts: Their parts.
        header: The header.
        block: Who can open it.
        leaf: What replies, faults and replays name it by.
    """

    body: bytes
    parts: Parts
    header: Header
    block: KeyBlock
    leaf: bytes

    @property
    def namespace(self) -> str:
        """The namespace it was published in."""
        return self.header.address.ex.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Evidence:
    """Everything that a third party needs.

    Attributes:
        sealed: The message.
        bundle: The signed bundle that was in force.
        pins: The roots that it is checked with.
        message_key: The key of this one message; None shows who sent it and not what.
    """

    sealed: bytes
    bundle: bytes
    pins: Pins
    message_key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Judgement:
    """What evidence proves.

    Attributes:
        sighting: The message, whose signature holds.
        bundle: The bundle that says whose key signed it.
        key_state: State of that key in this bundle.
        is_of_its_time: Whether the bundle was in force when the message says it was issued.
        content: What was sent, if the evidence holds the message's key.
    """

    sighting: Sighting
    bundle: TrustBundle
    key_state: KeyState
    is_of_its_time: bool
    content: Content | None


def look_at(body: bytes) -> Sighting:
    """Return what sealed bytes say of themselves, without any key.

    Raises:
        MalformedError, UnsupportedError: No sealed message.
    """
    parts = split_parts(body)
    header = parse_header(parts.header, names=_names_in(parts.header), suites=suite.SUITES)
    block = parse_block(parts.block, suite=header.address.suite)
    return Sighting(body=body, parts=parts, header=header, block=block, leaf=parts.leaf())


def prove(sighting: Sighting, bundle: TrustBundle) -> KeyState:
    """Return the state of the key that signed a message, by a bundle; its signature holds then.

    Raises:
        UnknownKeyError: The bundle does not know sender and key.
        SignatureError: The signature does not hold.
    """
    address, parts = sighting.header.address, sighting.parts
    entry = bundle.signing_entry(address.sender, address.skid)
    if entry is None:
        raise UnknownKeyError(
            f"no key {address.skid.hex()} of {address.sender!r} in trust bundle version {bundle.version}; take the "
            "bundle of the day on which the message was sent"
        )
    root = merkle.root_of_path(sighting.leaf, parts.path, size=parts.size, index=parts.index)
    if not entry.key.holds(parts.signature, suite.root_statement(address.skid, parts.size, root)):
        raise SignatureError(f"the signature is not that of {address.sender!r}: the message was altered or forged")
    return entry.state


def message_key(sighting: Sighting, keyring: Keyring) -> bytes:
    """Return the key of one message, 32 bytes: it opens that message and no other.

    Raises:
        AudienceError: The message is not sealed to a key of this keyring.
        DecryptionError: It is, and the key does not open it.
    """
    header, block = sighting.header, sighting.block
    for row in block.rows:
        key = keyring.decryption_key(row.rid, row.rkid)
        if key is None or key.suite != header.address.suite:
            continue
        info = suite.wrap_info(
            suite=header.address.suite,
            sender=header.address.sender,
            skid=header.address.skid,
            rid=row.rid,
            rkid=row.rkid,
            dek_id=block.dek_id,
            made_at_ms=block.made_at_ms,
        )
        found = suite.DataKey(key.unwrap(row.wrapped, info)).message_key(header.salt, header.mid)
        _content_key(sighting, found)
        return found
    readers = ", ".join(sorted({row.rid for row in block.rows}))
    raise AudienceError(
        f"the message is not sealed to a key of {keyring.service!r}; those of {readers} open it",
        disposition=Disposition.REFUSED,
    )


def open_with(sighting: Sighting, key: bytes) -> Content:
    """Return the content of a message by its own key.

    Raises:
        DecryptionError: It is the key of another message.
        MalformedError, UnsupportedError: The content cannot be read.
    """
    plaintext = suite.aead_open(
        _content_key(sighting, key),
        sighting.parts.content,
        block_digest=suite.sha256(sighting.parts.block),
        header=sighting.parts.header,
    )
    return parse_content(plaintext)


def bundle_of_time(bundles: Iterable[tuple[TrustBundle, bytes]], at_ms: int) -> bytes:
    """Return the bundle that was in force at a time: the last one issued by then, else the first there is.

    Raises:
        ConfigurationError: There are none.
    """
    ordered = sorted(bundles, key=lambda pair: pair[0].version)
    if not ordered:
        raise ConfigurationError("no trust bundle to prove anything with; name the one of the day, or a folder of them")
    earlier = [raw for bundle, raw in ordered if bundle.issued_at_ms <= at_ms + SKEW_MS]
    return earlier[-1] if earlier else ordered[0][1]


def pack_evidence(evidence: Evidence) -> bytes:
    """Return the content of an evidence file."""
    pins = evidence.pins
    content = {
        "v": VERSION,
        "realm": pins.realm,
        "roots": [root.raw.hex() for root in pins.roots],
        "threshold": pins.threshold,
        "bundle": base64.b64encode(evidence.bundle).decode(),
        "sealed": base64.b64encode(evidence.sealed).decode(),
        "message_key": None if evidence.message_key is None else evidence.message_key.hex(),
    }
    return dump_json(content) + b"\n"


def parse_evidence(raw: bytes, *, where: str = "evidence file") -> Evidence:
    """Return what an evidence file holds; `judge` says what it proves.

    Raises:
        ConfigurationError: Not strictly in form.
    """
    if len(raw) > EVIDENCE_MAX_BYTES:
        raise ConfigurationError(
            f"{where} has {len(raw)} bytes and is no evidence; at most {EVIDENCE_MAX_BYTES} are read"
        )
    fields = load_json(raw, where)
    fields.integer("v", lowest=VERSION, highest=VERSION)
    pins = pins_of(fields.text("realm"), fields.texts("roots"), threshold=fields.integer("threshold", lowest=1))
    bundle, sealed = _decoded(fields, "bundle"), _decoded(fields, "sealed")
    key = fields.optional_octets("message_key", MESSAGE_KEY_BYTES)
    fields.end()
    return Evidence(sealed=sealed, bundle=bundle, pins=pins, message_key=key)


def judge(evidence: Evidence) -> Judgement:
    """Return what evidence proves, trusting its roots.

    Raises:
        ConfigurationError: The bundle is not signed by the roots.
        SealError: The message is malformed, its signature does not hold, or the key is not its own.
    """
    pins = evidence.pins
    bundle = verify_bundle(evidence.bundle, roots=pins.roots, threshold=pins.threshold, realm=pins.realm)
    sighting = look_at(evidence.sealed)
    state = prove(sighting, bundle)
    issued_at_ms = sighting.header.iat
    return Judgement(
        sighting=sighting,
        bundle=bundle,
        key_state=state,
        is_of_its_time=bundle.issued_at_ms - SKEW_MS <= issued_at_ms <= bundle.expires_at_ms + GRACE_MS,
        content=None if evidence.message_key is None else open_with(sighting, evidence.message_key),
    )


def _names_in(header: bytes) -> Names:
    # The exchange begins with the namespace; whether the rest fits it is for the parser to say.
    fields = unpack(header, what="header", array_max=32, map_max=32, text_max=256, bytes_max=256)
    exchange = fields[_EXCHANGE_AT] if type(fields) is list and len(fields) > _EXCHANGE_AT else None
    try:
        return Names(str(exchange).partition(".")[0])
    except ConfigurationError as exc:
        raise MalformedError("the header names no exchange of any namespace") from exc


def _content_key(sighting: Sighting, key: bytes) -> bytes:
    content_key, commitment = suite.split_message_key(key)
    if not suite.same(commitment, sighting.header.cmt):
        raise DecryptionError("the key is not that of this message", disposition=Disposition.CONTENT)
    return content_key


def _decoded(fields: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields.text(name), validate=True)
    except ValueError:
        # Bad base64, and text that is no ASCII.
        fields.refuse(f"field {name!r} is not valid base64; the file is damaged, export it again")
