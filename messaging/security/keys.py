"""Signing and encryption keys: pairs, ids, and what may not be imported (docs/spec.md, "Keys", "Pitfalls").

Private halves never show: not in `repr`, not in pickles. Public halves are checked before use, because the library
underneath loads keys under which anybody can sign, and several encodings of one key.
"""

from collections.abc import Mapping
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from messaging.errors import ConfigurationError
from messaging.security import suite
from messaging.security.suite import ENCRYPTION_ALGORITHMS, SUITE_1, fresh_bytes

__all__ = [
    "DECRYPTION_KEY_BYTES",
    "KEY_BYTES",
    "PUBLIC_KEY_BYTES",
    "DecryptionKey",
    "EncryptionKey",
    "SigningKey",
    "VerifyKey",
]

KEY_BYTES: Final = 32
# An X-Wing key is ML-KEM-768 followed by X25519: encapsulation key or seed, then 32 bytes (docs/spec.md, "Suites").
MLKEM_PUBLIC_BYTES: Final = 1184
MLKEM_SEED_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final[Mapping[int, int]] = {
    suite.ED25519: KEY_BYTES,
    suite.X25519: KEY_BYTES,
    suite.XWING: MLKEM_PUBLIC_BYTES + KEY_BYTES,
}
DECRYPTION_KEY_BYTES: Final[Mapping[int, int]] = {
    suite.X25519: KEY_BYTES,
    suite.XWING: MLKEM_SEED_BYTES + KEY_BYTES,
}
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
# FIPS 203, 7.2: each of the 768 numbers of an encapsulation key is below q; larger ones are second encodings.
_MLKEM_Q: Final = 3329
_MLKEM_NUMBERS_BYTES: Final = 1152


class VerifyKey:
    """A public Ed25519 key.

    Args:
        raw: 32 bytes.
        realm: The realm it belongs to.

    Attributes:
        parts: The one key it consists of.

    Raises:
        ConfigurationError: Wrong length, small order, or not the one canonical encoding.
    """

    __slots__ = ("_key", "kid", "parts", "raw")

    algorithm: Final = suite.ED25519

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
        self.parts: Final = (raw,)
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
        return cls(fresh_bytes(KEY_BYTES), realm=realm)

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
    """A public encryption key: X25519 of suite 1, or X-Wing of suite 2; its length tells which.

    Args:
        raw: 32 bytes, or 1216: ML-KEM-768 encapsulation key, then X25519.
        realm: The realm it belongs to.

    Attributes:
        suite: The suite it is of.
        algorithm: X25519 or X-Wing.
        parts: Each key it consists of; none of them may serve anywhere else.

    Raises:
        ConfigurationError: Wrong length, small order, top bit set, or not the one canonical encoding.
    """

    __slots__ = ("_key", "algorithm", "kid", "parts", "raw", "suite")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        is_hybrid = len(raw) == PUBLIC_KEY_BYTES[suite.XWING]
        curve = raw[MLKEM_PUBLIC_BYTES:] if is_hybrid else raw
        _check_x25519(curve)
        self.raw: Final = raw
        self.suite: Final = suite.SUITE_2 if is_hybrid else suite.SUITE_1
        self.algorithm: Final = suite.ENCRYPTION_ALGORITHMS[self.suite]
        self.parts: Final = (raw[:MLKEM_PUBLIC_BYTES], curve) if is_hybrid else (raw,)
        self.kid: Final = suite.key_id(self.algorithm, realm, raw)
        self._key: suite.PublicWrapKey = X25519PublicKey.from_public_bytes(curve)
        if is_hybrid:
            self._key = MLKEM768X25519PublicKey(_mlkem_public(self.parts[0]), self._key)

    def wrap(self, secret: bytes, info: bytes) -> bytes:
        """Encrypt a data key to the owner of this key."""
        return suite.wrap(secret, self._key, info, suite=self.suite)

    def __repr__(self) -> str:
        return f"EncryptionKey({self.kid.hex()})"


class DecryptionKey:
    """A private encryption key of one realm: X25519, or X-Wing.

    Args:
        raw: 32 bytes, or 96: seed of ML-KEM-768 (64), then X25519 (32).
        realm: The realm it belongs to.

    Raises:
        ConfigurationError: Wrong length.
    """

    __slots__ = ("_key", "_raw", "public")

    def __init__(self, raw: bytes, *, realm: str) -> None:
        is_hybrid = len(raw) == DECRYPTION_KEY_BYTES[suite.XWING]
        curve = raw[MLKEM_SEED_BYTES:] if is_hybrid else raw
        _check_length(curve, "private X25519")
        key = X25519PrivateKey.from_private_bytes(curve)
        self._raw = raw
        self._key: suite.PrivateWrapKey = key
        public = key.public_key().public_bytes_raw()
        if is_hybrid:
            lattice = _mlkem_private(raw[:MLKEM_SEED_BYTES])
            self._key = MLKEM768X25519PrivateKey(lattice, key)
            public = lattice.public_key().public_bytes_raw() + public
        self.public: Final = EncryptionKey(public, realm=realm)

    @classmethod
    def generate(cls, realm: str, suite: int = SUITE_1) -> "DecryptionKey":
        """Make a fresh key of a suite."""
        return cls(fresh_bytes(DECRYPTION_KEY_BYTES[ENCRYPTION_ALGORITHMS[suite]]), realm=realm)

    @property
    def kid(self) -> bytes:
        """The key's id."""
        return self.public.kid

    @property
    def suite(self) -> int:
        """The suite it is of."""
        return self.public.suite

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """Return the data key.

        Raises:
            DecryptionError: It was not made for this key and these facts.
        """
        return suite.unwrap(wrapped, self._key, info, suite=self.suite)

    def secret(self) -> bytes:
        """Return the private bytes, for the key file alone."""
        return self._raw

    def __repr__(self) -> str:
        return f"DecryptionKey({self.kid.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never pickled; write a key file")


def _check_x25519(raw: bytes) -> None:
    _check_length(raw, "X25519")
    u = int.from_bytes(raw, "little")
    # X25519 ignores the top bit while HPKE hashes the bytes as given: such a key's owner could not open anything.
    if u >= _PRIME:
        raise ConfigurationError(f"the X25519 key {raw.hex()} is not in canonical form; export it again")
    if u in _X25519_SMALL:
        raise ConfigurationError(
            f"the X25519 key {raw.hex()} has small order: anybody can open what is sent to it; make another"
        )


def _mlkem_public(raw: bytes) -> MLKEM768PublicKey:
    # 12 bits each, two in three bytes. The library makes this check too, and then speaks of a wrong length.
    numbers = raw[:_MLKEM_NUMBERS_BYTES]
    low = (first | (second & 15) << 8 for first, second in zip(numbers[::3], numbers[1::3], strict=True))
    high = (second >> 4 | third << 4 for second, third in zip(numbers[1::3], numbers[2::3], strict=True))
    if max(*low, *high) >= _MLKEM_Q:
        raise ConfigurationError(f"the ML-KEM-768 key {raw[:8].hex()}… is not in canonical form; export it again")
    try:
        return MLKEM768PublicKey.from_public_bytes(raw)
    except UnsupportedAlgorithm as exc:
        raise _without_mlkem() from exc


def _mlkem_private(seed: bytes) -> MLKEM768PrivateKey:
    try:
        return MLKEM768PrivateKey.from_seed_bytes(seed)
    except UnsupportedAlgorithm as exc:
        raise _without_mlkem() from exc


def _without_mlkem() -> ConfigurationError:
    return ConfigurationError(
        "suite 2 needs ML-KEM-768, which the OpenSSL that the package cryptography uses here has not; install the "
        "wheel of cryptography 48 or newer, or build it with OpenSSL 3.5 or newer"
    )


def _check_length(raw: bytes, what: str) -> None:
    if len(raw) != KEY_BYTES:
        raise ConfigurationError(f"a {what} key has {KEY_BYTES} bytes, not {len(raw)}; export it again")
