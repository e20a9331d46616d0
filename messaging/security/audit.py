"""Records of what operators did, signed by them; an audit stream at the broker holds them (docs/operations.md).

A record is a signature and the JSON that it covers. It is signed and not encrypted: it says which letters, never what
was in them, as the log does. Whoever may write to the broker can put junk among the records, and it is shown as such;
what nobody can do is put words into an operator's mouth. That no record is missing, a signature cannot prove.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from messaging.core.names import is_sender
from messaging.errors import ConfigurationError
from messaging.security import suite
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.keys import SIGNATURE_BYTES, SigningKey
from messaging.security.strict_json import dump_json, load_json

__all__ = ["AuditRecord", "Proof", "pack_record", "read_record"]

VERSION: Final = 1
RECORD_MAX_BYTES: Final = 256 * 1024
_KEY_ID_BYTES: Final = 8
# Its own label: a signature over a record can stand for nothing else, nor anything else's for a record.
_STATEMENT: Final = suite.LABEL + b"audit\0"


class Proof(Enum):
    """What a record's signature proves."""

    SIGNED = "signed"
    COMPROMISED = "compromised key"
    UNKNOWN_KEY = "unknown key"
    FORGED = "not signed by whom it names"
    JUNK = "no record"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One record.

    Attributes:
        proof: What the signature proves; unless it is SIGNED, everything else is anybody's claim.
        by: Who is named as the one who did it.
        fields: What was done.
    """

    proof: Proof
    by: str = ""
    fields: Mapping[str, Any]


def pack_record(fields: Mapping[str, object], *, by: str, realm: str, signer: SigningKey) -> bytes:
    """Return a signed record.

    Args:
        fields: Strings, whole numbers, booleans, None, and lists and maps of them.
        by: Service, or `ops:<name>`, that signs.
        realm: Its realm.
        signer: Its key.

    Raises:
        ConfigurationError: it is too large.
    """
    content = dump_json({"v": VERSION, "realm": realm, "by": by, "kid": signer.kid.hex(), "fields": dict(fields)})
    if len(content) > RECORD_MAX_BYTES:
        raise ConfigurationError(f"an audit record of {len(content)} bytes: {RECORD_MAX_BYTES} are possible")
    return signer.sign(_STATEMENT + content) + content


def read_record(raw: bytes, bundle: TrustBundle) -> AuditRecord:
    """Return what a record says and whether that is proven. Never raises for what the bytes hold."""
    signature, content = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    if len(content) > RECORD_MAX_BYTES:
        return AuditRecord(proof=Proof.JUNK, fields={})
    try:
        found = load_json(content, "audit record")
        found.integer("v", lowest=VERSION, highest=VERSION)
        realm, by, kid = found.text("realm"), found.text("by"), found.octets("kid", _KEY_ID_BYTES)
        fields = found.mapping("fields")
        found.end()
    except ConfigurationError:
        return AuditRecord(proof=Proof.JUNK, fields={})
    if realm != bundle.realm or not is_sender(by):
        return AuditRecord(proof=Proof.JUNK, fields={})
    return AuditRecord(proof=_proof(bundle, by, kid, signature, content), by=by, fields=fields)


def _proof(bundle: TrustBundle, by: str, kid: bytes, signature: bytes, content: bytes) -> Proof:
    entry = bundle.signing_entry(by, kid)
    if entry is None:
        return Proof.UNKNOWN_KEY
    if not entry.key.holds(signature, _STATEMENT + content):
        return Proof.FORGED
    # A key that was stolen signs what the thief likes, with any time on it.
    return Proof.COMPROMISED if entry.state is KeyState.COMPROMISED else Proof.SIGNED
