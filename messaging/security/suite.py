"""The primitives of both suites, each wrapped once, with the reason why its use is safe (docs/spec.md, "Keys").

Everything that is hashed, derived or signed begins with the label of this format, so no value made here means anything
to another protocol that uses the same key. Errors of the cryptographic library differ from call to call; they are
mapped here to one class, so that a sender learns nothing from the way an attempt failed.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Final, NoReturn
from uuid import UUID

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from messaging.errors import ConfigurationError, DecryptionError, Disposition

__all__ = [
    "ED25519",
    "ENCRYPTION_ALGORITHMS",
    "LABEL",
    "SUITES",
    "SUITE_1",
    "SUITE_2",
    "WRAPPED_BYTES",
    "X25519",
    "XWING",
    "DataKey",
    "PrivateWrapKey",
    "PublicWrapKey",
    "aead_open",
    "aead_seal",
    "fault_id",
    "fresh_bytes",
    "key_id",
    "leaf_of_parts",
    "root_statement",
    "same",
    "sha256",
    "split_message_key",
    "unwrap",
    "wrap",
    "wrap_info",
]

LABEL: Final = b"messaging/1/"
SUITE_1: Final = 1
SUITE_2: Final = 2
ED25519: Final = 1
X25519: Final = 2
XWING: Final = 3

# Which algorithm the encryption keys of a suite have, and how long a data key is when wrapped to one: the key that is
# encapsulated (32, or 1088 of ML-KEM and 32 of X25519), the data key and a tag (docs/spec.md, "Suites").
ENCRYPTION_ALGORITHMS: Final[Mapping[int, int]] = {SUITE_1: X25519, SUITE_2: XWING}
WRAPPED_BYTES: Final[Mapping[int, int]] = {SUITE_1: 80, SUITE_2: 1168}
SUITES: Final = frozenset(ENCRYPTION_ALGORITHMS)

DATA_KEY_BYTES: Final = 32
TAG_BYTES: Final = 16

_REALM_MAX: Final = 255
_KEY_ID: Final = LABEL + b"kid\0"
_WRAP: Final = LABEL + b"wrap\0"
_MESSAGE: Final = LABEL + b"msg\0"
_SPLIT: Final = LABEL + b"split\0\x01"
_AAD: Final = LABEL + b"aad\0"
_LEAF: Final = b"\x00" + LABEL + b"leaf\0"
_ROOT: Final = LABEL + b"root\0"
_FAULT: Final = LABEL + b"fault\0"

# A key seals exactly one message, so a constant nonce never repeats under one key (docs/spec.md, "Keys").
_NONCE: Final = bytes(12)
_SHA512_BLOCK: Final = 128
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
# What follows a 32-byte key in the two blocks that HMAC starts from, and the message of the inner one.
_SPLIT_INNER: Final = b"\x36" * (_SHA512_BLOCK - 32) + _SPLIT
_SPLIT_OUTER: Final = b"\x5c" * (_SHA512_BLOCK - 32)
_HPKE: Final[Mapping[int, Suite]] = {
    SUITE_1: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    SUITE_2: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}

# One look-up less for what every message asks for several times.
_sha256, _sha512 = hashlib.sha256, hashlib.sha512

PublicWrapKey = X25519PublicKey | MLKEM768X25519PublicKey
PrivateWrapKey = X25519PrivateKey | MLKEM768X25519PrivateKey


def sha256(content: bytes) -> bytes:
    """Return the SHA-256 digest."""
    return hashlib.sha256(content).digest()


def fresh_bytes(size: int) -> bytes:
    """Return secret bytes from the operating system, whose generator is safe across forks."""
    return os.urandom(size)


def same(left: bytes, right: bytes) -> bool:
    """Compare in constant time: the duration tells nothing about where two values differ."""
    return hmac.compare_digest(left, right)


def key_id(algorithm: int, realm: str, public: bytes) -> bytes:
    """Return the 8-byte id of a public key; algorithm and realm are part of it, so a key means nothing elsewhere.

    Raises:
        ConfigurationError: The realm's length does not fit into its byte, or it is no ASCII.
    """
    if not (realm.isascii() and len(realm) <= _REALM_MAX):
        raise ConfigurationError(f"{realm[:80]!r} cannot name a realm: use up to {_REALM_MAX} ASCII characters")
    name = realm.encode()
    return sha256(_KEY_ID + bytes((algorithm, len(name))) + name + public)[:8]


def fault_id(bind: bytes, replays: int) -> UUID:
    """Return the id of a fault: the same failure buried twice has the same id and is a duplicate.

    Args:
        bind: Leaf of the message that failed, 32 bytes.
        replays: How often it had been replayed before.
    """
    return UUID(bytes=sha256(_FAULT + bind + replays.to_bytes(4, "big"))[:16])


class DataKey:
    """The key of a data-key period; every message takes its own keys from it (docs/spec.md, "Keys").

    HKDF-Expand-SHA512 of one block is HMAC(key, info ‖ 1). The two hash states that HMAC starts from are kept: they are
    as secret as the key, live as long, and make the step three times faster. 32 uniform bytes are a safe HMAC key.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        block = secret.ljust(_SHA512_BLOCK, b"\0")
        self._inner = hashlib.sha512(block.translate(_INNER) + _MESSAGE)
        self._outer = hashlib.sha512(block.translate(_OUTER))

    def message_key(self, salt: bytes, message_id: bytes) -> bytes:
        """Return the key of one message: whoever is given it can open that message, and forge none."""
        inner = self._inner.copy()
        inner.update(salt + message_id + b"\x01")
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()[:32]

    def derive(self, salt: bytes, message_id: bytes) -> tuple[bytes, bytes]:
        """Return the content key and the commitment of one message, 32 bytes each.

        The commitment is in the signed header: AES-GCM alone lets one ciphertext open under two keys.
        """
        # `split_message_key` of `message_key`, in one step: every message asks for it.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(salt + message_id + b"\x01")
        outer.update(inner.digest())
        message_key = outer.digest()[:32]
        split = _sha512(message_key.translate(_INNER) + _SPLIT_INNER).digest()
        both = _sha512(message_key.translate(_OUTER) + _SPLIT_OUTER + split).digest()
        return both[:32], both[32:]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a data key is never pickled or copied out of its process")


def split_message_key(message_key: bytes) -> tuple[bytes, bytes]:
    """Return content key and commitment from the key of one message, 32 bytes each."""
    # HMAC-SHA512 by its definition, which costs less than setting one up for a key that is used once.
    inner = hashlib.sha512(message_key.translate(_INNER) + _SPLIT_INNER).digest()
    both = hashlib.sha512(message_key.translate(_OUTER) + _SPLIT_OUTER + inner).digest()
    return both[:32], both[32:]


def aead_seal(key: bytes, plaintext: bytes, *, block_digest: bytes, header: bytes) -> bytes:
    """Encrypt; header and key block are authenticated with the content. Returns ciphertext and tag."""
    return AESGCM(key).encrypt(_NONCE, plaintext, _AAD + block_digest + header)


def aead_open(key: bytes, ciphertext: bytes, *, block_digest: bytes, header: bytes) -> bytes:
    """Decrypt what `aead_seal` made.

    Raises:
        DecryptionError: The tag does not hold.
    """
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, _AAD + block_digest + header)
    except (InvalidTag, ValueError) as exc:
        raise _unreadable() from exc


def wrap_info(
    *, sender: str, skid: bytes, rid: str, rkid: bytes, dek_id: bytes, made_at_ms: int, suite: int = SUITE_1
) -> bytes:
    """Return what a wrap is bound to: nobody can present it as another suite's, sender's, recipient's or key's."""
    return _WRAP + bytes(msgpack.packb([suite, sender, skid, rid, rkid, dek_id, made_at_ms]))


def wrap(secret: bytes, public: PublicWrapKey, info: bytes, *, suite: int = SUITE_1) -> bytes:
    """Encrypt a data key to one recipient with HPKE in base mode: who sent it is proven by the signature."""
    return _HPKE[suite].encrypt(secret, public, info)


def unwrap(wrapped: bytes, private: PrivateWrapKey, info: bytes, *, suite: int = SUITE_1) -> bytes:
    """Decrypt a data key.

    Raises:
        DecryptionError: It is not for this key, is bound to other facts, or is no data key of 32 bytes.
    """
    try:
        secret = _HPKE[suite].decrypt(wrapped, private, info)
    except (InvalidTag, ValueError, TypeError) as exc:
        raise _unreadable() from exc
    if len(secret) != DATA_KEY_BYTES:
        raise _unreadable()
    return secret


def leaf_of_parts(header: bytes, block_digest: bytes, content: bytes) -> bytes:
    """Return the leaf of a message from its three signed parts; of the key block its SHA-256 digest is enough."""
    return _sha256(_LEAF + _sha256(header).digest() + block_digest + _sha256(content).digest()).digest()


def root_statement(skid: bytes, size: int, root: bytes) -> bytes:
    """Return what the sender signs for a batch: its key, the size and the root."""
    return b"".join((_ROOT, skid, size.to_bytes(2, "big"), root))


def _unreadable() -> DecryptionError:
    # One text for every cause: the sender must not learn from it how far an attempt came.
    return DecryptionError(
        "the content cannot be opened with the keys of this service", disposition=Disposition.CONTENT
    )
