"""Signing and encryption keys: pairs, ids, and what may not be imported (docs/spec.md, "Keys", "Pitfalls").

Private halves never show: not in `repr`, not in pickles. Public halves are checked before use, because the library
underneath loads keys under which anybody can sign, and several encodings of one key.
"""

from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from messaging.errors import ConfigurationError
from messaging.security import suite

__all__ = ["KEY_BYTES", "DecryptionKey", "EncryptionKey", "SigningKey", "VerifyKey"]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_PRIME: Final = 2**255 - 19
_SIGN_BIT: Final = 1 << 255
# The y of the points whose order divides 8: under such a key anybody can make signatures. The first five are canonical,
# p and p + 1 are second encodings of 0 and 1; each with either sign bit gives the list of 14.
_ED25519_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_ED25519_SMALL: Final = frozenset({0, 1, _PRIME - 1, _PRIME, _PRIME + 1, _ED25519_ORDER_8, _PRIME - _ED25519_ORDER_8})
# The u of the points whose order divides 8, curve and twist: a wrap to one of them has a shared secret of zeros.
_X25519_SMALL: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    }
)


class VerifyKey:
    """A public Ed25519 key.

    Args:
        raw: 32 bytes.
        realm: The realm it belongs to.

    Raises:
        ConfigurationError: Wrong length, small order, or not the one canonical encoding.
    """

    __slots__ = ("_key", "kid", "raw")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        _check_length(raw, "Ed25519")
        y = int.from_bytes(raw, "little") & ~_SIGN_BIT
        if y in _ED25519_SMALL:
            raise ConfigurationError(
                f"the Ed25519 key {raw.hex()} has small order: anybody can sign under it; make another"
            )
        if y >= _PRIME:
            raise ConfigurationError(f"the Ed25519 key {raw.hex()} is not in canonical form; export it again")
        self.raw: Final = raw
        self.kid: Final = suite.key_id(suite.ED25519, realm, raw)
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def holds(self, signature: bytes, statement: bytes) -> bool:
        """Tell whether the signature over the statement is this key's."""
        try:
            self._key.verify(signature, statement)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __repr__(self) -> str:
        return f"VerifyKey({self.kid.hex()})"


class SigningKey:
    """A private Ed25519 key of one realm."""

    __slots__ = ("_key", "public")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        _check_length(raw, "private Ed25519")
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public: Final = VerifyKey(self._key.public_key().public_bytes_raw(), realm=realm)

    @classmethod
    def generate(cls, realm: str) -> "SigningKey":
        """Make a fresh key."""
        return cls(suite.fresh_bytes(KEY_BYTES), realm=realm)

    @property
    def kid(self) -> bytes:
        """The key's id."""
        return self.public.kid

    def sign(self, statement: bytes) -> bytes:
        """Return the 64-byte signature. Ed25519 is deterministic: no random number that could leak the key."""
        return self._key.sign(statement)

    def secret(self) -> bytes:
        """Return the private bytes, for the key file alone."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey({self.kid.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never pickled; write a key file")


class EncryptionKey:
    """A public X25519 key.

    Raises:
        ConfigurationError: Wrong length, small order, top bit set, or not the one canonical encoding.
    """

    __slots__ = ("_key", "kid", "raw")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        _check_length(raw, "X25519")
        u = int.from_bytes(raw, "little")
        # X25519 ignores the top bit while HPKE hashes the bytes as given: such a key's owner could not open anything.
        if u >= _PRIME:
            raise ConfigurationError(f"the X25519 key {raw.hex()} is not in canonical form; export it again")
        if u in _X25519_SMALL:
            raise ConfigurationError(
                f"the X25519 key {raw.hex()} has small order: anybody can open what is sent to it; make another"
            )
        self.raw: Final = raw
        self.kid: Final = suite.key_id(suite.X25519, realm, raw)
        self._key = X25519PublicKey.from_public_bytes(raw)

    def wrap(self, secret: bytes, info: bytes) -> bytes:
        """Encrypt a data key to the owner of this key."""
        return suite.wrap(secret, self._key, info)

    def __repr__(self) -> str:
        return f"EncryptionKey({self.kid.hex()})"


class DecryptionKey:
    """A private X25519 key of one realm."""

    __slots__ = ("_key", "public")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        _check_length(raw, "private X25519")
        self._key = X25519PrivateKey.from_private_bytes(raw)
        self.public: Final = EncryptionKey(self._key.public_key().public_bytes_raw(), realm=realm)

    @classmethod
    def generate(cls, realm: str) -> "DecryptionKey":
        """Make a fresh key."""
        return cls(suite.fresh_bytes(KEY_BYTES), realm=realm)

    @property
    def kid(self) -> bytes:
        """The key's id."""
        return self.public.kid

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """Return the data key.

        Raises:
            DecryptionError: It was not made for this key and these facts.
        """
        return suite.unwrap(wrapped, self._key, info)

    def secret(self) -> bytes:
        """Return the private bytes, for the key file alone."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"DecryptionKey({self.kid.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never pickled; write a key file")


def _check_length(raw: bytes, what: str) -> None:
    if len(raw) != KEY_BYTES:
        raise ConfigurationError(f"a {what} key has {KEY_BYTES} bytes, not {len(raw)}; export it again")
