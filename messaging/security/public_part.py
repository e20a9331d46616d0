"""The public part of a keyring, as a file for whoever signs the trust bundle (docs/trust.md).

It proves that its maker holds the private signing keys: each of them has signed the file, so nobody can offer another's
key under a name of their own. That the file is the right one is for people to compare, by its fingerprint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from messaging.core.names import is_sender
from messaging.errors import ConfigurationError
from messaging.security import suite
from messaging.security.keyring import Keyring
from messaging.security.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, EncryptionKey, VerifyKey
from messaging.security.strict_json import Fields, dump_json, load_json

__all__ = ["PublicPart", "export_part", "fingerprint", "import_part", "part_of"]

VERSION: Final = 1
PART_MAX_BYTES: Final = 1 << 20

_STATEMENT: Final = suite.LABEL + b"part\0"
_FINGERPRINT_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPart:
    """The public keys of one identity.

    Attributes:
        identity: Service, or `ops:<name>`.
        realm: Their realm.
        signing: Public signing keys.
        encryption: Public encryption keys.
        groups: Encryption keys by group that this identity can open for.
    """

    identity: str
    realm: str
    signing: tuple[VerifyKey, ...]
    encryption: tuple[EncryptionKey, ...]
    groups: Mapping[str, tuple[EncryptionKey, ...]] = field(default_factory=dict)


def part_of(keyring: Keyring) -> PublicPart:
    """Return the public part of a keyring."""
    return PublicPart(
        identity=keyring.service,
        realm=keyring.realm,
        signing=tuple(key.public for key in keyring.signing),
        encryption=tuple(key.public for key in keyring.decryption.values()),
        groups={group: tuple(key.public for key in keys.values()) for group, keys in keyring.groups.items()},
    )


def export_part(keyring: Keyring) -> bytes:
    """Return the public part as the content of a file, signed by each of its signing keys."""
    content = _content(part_of(keyring))
    statement = _STATEMENT + dump_json(content)
    return dump_json({**content, "proofs": [key.sign(statement).hex() for key in keyring.signing]}) + b"\n"


def import_part(raw: bytes, *, realm: str, where: str = "public part") -> PublicPart:
    """Return the public part that a file holds.

    Args:
        raw: Its content.
        realm: The realm that it must be for.
        where: What it is, for errors.

    Raises:
        ConfigurationError: Not strictly in form, for another realm, a key that may not be used, or a proof that fails.
    """
    if len(raw) > PART_MAX_BYTES:
        raise ConfigurationError(
            f"{where} has {len(raw)} bytes and is no public part; `messaging keys export` makes one"
        )
    fields = load_json(raw, where)
    fields.integer("v", lowest=VERSION, highest=VERSION)
    found, identity = fields.text("realm"), fields.text("identity")
    if found != realm:
        fields.refuse(f"it is for realm {found!r}, the bundle for {realm!r}; export a key file of that realm")
    if not is_sender(identity):
        fields.refuse(f"{identity!r} names no service and no operator")
    groups = fields.object("groups")
    part = PublicPart(
        identity=identity,
        realm=realm,
        signing=tuple(VerifyKey(raw, realm=realm) for raw in _keys(fields, "sign", suite.ED25519, suite.ED25519)),
        encryption=tuple(EncryptionKey(raw, realm=realm) for raw in _keys(fields, "enc", suite.X25519, suite.XWING)),
        groups={
            name: tuple(EncryptionKey(raw, realm=realm) for raw in _keys(groups, name, suite.X25519, suite.XWING))
            for name in groups.names()
        },
    )
    proofs = [fields.as_octets(proof, SIGNATURE_BYTES) for proof in fields.items("proofs")]
    fields.end()
    _check_proofs(part, proofs, fields)
    return part


def fingerprint(part: PublicPart) -> str:
    """Return what two people compare: 32 hex digits in groups of four, the same for the same keys."""
    digits = suite.sha256(_STATEMENT + dump_json(_content(part)))[:_FINGERPRINT_BYTES].hex()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _content(part: PublicPart) -> dict[str, object]:
    return {
        "v": VERSION,
        "realm": part.realm,
        "identity": part.identity,
        "sign": _entries(part.signing),
        "enc": _entries(part.encryption),
        "groups": {group: _entries(keys) for group, keys in part.groups.items()},
    }


def _entries(keys: Sequence[VerifyKey] | Sequence[EncryptionKey]) -> list[dict[str, Any]]:
    return [{"alg": key.algorithm, "kid": key.kid.hex(), "pub": key.raw.hex()} for key in keys]


def _keys(fields: Fields, name: str, first: int, last: int) -> list[bytes]:
    keys: list[bytes] = []
    for entry in fields.objects(name):
        algorithm = entry.integer("alg", lowest=first, highest=last)
        entry.octets("kid", 8)
        keys.append(entry.octets("pub", PUBLIC_KEY_BYTES[algorithm]))
        entry.end()
    return keys


def _check_proofs(part: PublicPart, proofs: Sequence[bytes], fields: Fields) -> None:
    if not part.signing or not part.encryption:
        fields.refuse("it needs a signing and an encryption key; export the key file again")
    # The very form that was signed: what was read is written again, so nothing unread can hide beside it.
    statement = _STATEMENT + dump_json(_content(part))
    if len(proofs) != len(part.signing) or not all(
        key.holds(proof, statement) for key, proof in zip(part.signing, proofs, strict=True)
    ):
        fields.refuse("it is not signed by the keys that it names: it was altered, or made by somebody without them")
