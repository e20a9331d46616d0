"""Key files: a keyring as JSON, sealed by a passphrase or guarded by permissions alone (docs/trust.md, "Key files").

The passphrase goes through scrypt, whose cost the file names; the fields in clear are authenticated with the secret
part, so nobody swaps the pinned roots under an untouched secret. A person's key always has a passphrase.
"""

import base64
import binascii
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from messaging.errors import ConfigurationError
from messaging.security.keyring import Keyring
from messaging.security.keys import KEY_BYTES, DecryptionKey, SigningKey, VerifyKey
from messaging.security.private_files import read_private, write_file
from messaging.security.strict_json import Fields, dump_json, load_json
from messaging.security.suite import fresh_bytes

__all__ = ["SCRYPT_COST", "decode_keyring", "encode_keyring", "keyring_file", "load_keyring", "write_keyring"]

VERSION: Final = 1
SCRYPT_COST: Final = 1 << 17
# Reading: enough that a file of later years opens, bounded so that a hostile one cannot eat the memory (1 GiB).
SCRYPT_COST_MAX: Final = 1 << 20
SCRYPT_COST_MIN: Final = 1 << 10
SCRYPT_BLOCK: Final = 8
SCRYPT_LANES: Final = 1
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12


def keyring_file(identity: str) -> str:
    """Return the name of an identity's key file; services have no dot, so operators never clash with them."""
    return identity.replace(":", ".") + ".key"


def load_keyring(path: Path, *, passphrase: bytes | None = None) -> Keyring:
    """Return the keyring of a key file.

    Args:
        path: `<service>.key`, or `ops.<name>.key` of an operator.
        passphrase: Where the file has one.

    Raises:
        ConfigurationError: Missing, open to others, damaged, or the passphrase is wrong; with the remedy.
    """
    return decode_keyring(read_private(path), passphrase=passphrase, where=f"key file {path}")


def write_keyring(
    keyring: Keyring,
    path: Path,
    *,
    passphrase: bytes | None = None,
    replace: bool = False,
    cost: int = SCRYPT_COST,
) -> None:
    """Write a key file, for the owner's eyes alone.

    Args:
        keyring: The keys.
        path: Where.
        passphrase: Seals the file; operators need one.
        replace: Whether an existing file is replaced.
        cost: Scrypt's cost, a power of two.

    Raises:
        ConfigurationError: The file exists, cannot be written, or an operator's has no passphrase.
    """
    write_file(path, encode_keyring(keyring, passphrase=passphrase, cost=cost), replace=replace)


def encode_keyring(keyring: Keyring, *, passphrase: bytes | None, cost: int = SCRYPT_COST) -> bytes:
    """Return the content of a key file.

    Raises:
        ConfigurationError: An operator's has no passphrase.
    """
    _check_passphrase(keyring, sealed=passphrase is not None)
    clear: dict[str, object] = {
        "v": VERSION,
        "realm": keyring.realm,
        "service": keyring.service,
        "roots": [root.raw.hex() for root in keyring.roots],
        "threshold": keyring.threshold,
        "kdf": None,
        "nonce": None,
    }
    secret = dump_json(
        {
            "signing": [key.secret().hex() for key in keyring.signing],
            "decryption": [key.secret().hex() for key in keyring.decryption.values()],
            "groups": {group: [key.secret().hex() for key in keys.values()] for group, keys in keyring.groups.items()},
        }
    )
    if passphrase is not None:
        salt, nonce = fresh_bytes(SALT_BYTES), fresh_bytes(NONCE_BYTES)
        clear["kdf"] = {"name": "scrypt", "n": cost, "r": SCRYPT_BLOCK, "p": SCRYPT_LANES, "salt": salt.hex()}
        clear["nonce"] = nonce.hex()
        # Key and nonce are fresh for each writing: the salt makes the key new even under one passphrase.
        secret = AESGCM(_key_of(passphrase, salt, cost)).encrypt(nonce, secret, dump_json(clear))
    return dump_json({**clear, "ct": base64.b64encode(secret).decode()}) + b"\n"


def decode_keyring(raw: bytes, *, passphrase: bytes | None, where: str = "key file") -> Keyring:
    """Return the keyring from the content of a key file; raises as `load_keyring` does."""
    fields = load_json(raw, where)
    fields.integer("v", lowest=VERSION, highest=VERSION)
    realm, service = fields.text("realm"), fields.text("service")
    roots = tuple(fields.as_octets(root, KEY_BYTES) for root in fields.items("roots"))
    threshold = fields.integer("threshold", lowest=1)
    kdf = fields.optional_object("kdf")
    clear: dict[str, object] = {
        "v": VERSION,
        "realm": realm,
        "service": service,
        "roots": [root.hex() for root in roots],
        "threshold": threshold,
    }
    if kdf is None:
        if fields.optional_integer("nonce") is not None:
            fields.refuse("a nonce without a kdf; the file is damaged, restore it")
        secret = _ciphertext(fields)
    else:
        secret = _decrypted(fields, kdf, clear, passphrase)
    fields.end()
    keyring = _keyring(load_json(secret, where), realm, service, roots, threshold)
    _check_passphrase(keyring, sealed=kdf is not None)
    return keyring


def _decrypted(fields: Fields, kdf: Fields, clear: dict[str, object], passphrase: bytes | None) -> bytes:
    cost, salt = _read_kdf(kdf)
    nonce = fields.octets("nonce", NONCE_BYTES)
    sealed = _ciphertext(fields)
    if passphrase is None:
        fields.refuse("it is sealed with a passphrase; name the file that holds it in MESSAGING_PASSPHRASE_FILE")
    clear["kdf"] = {"name": "scrypt", "n": cost, "r": SCRYPT_BLOCK, "p": SCRYPT_LANES, "salt": salt.hex()}
    clear["nonce"] = nonce.hex()
    try:
        return AESGCM(_key_of(passphrase, salt, cost)).decrypt(nonce, sealed, dump_json(clear))
    except InvalidTag:
        fields.refuse("the passphrase is wrong, or the file has been altered; try again or restore it")


def _read_kdf(kdf: Fields) -> tuple[int, bytes]:
    name = kdf.text("name")
    cost = kdf.integer("n", lowest=SCRYPT_COST_MIN, highest=SCRYPT_COST_MAX)
    kdf.integer("r", lowest=SCRYPT_BLOCK, highest=SCRYPT_BLOCK)
    kdf.integer("p", lowest=SCRYPT_LANES, highest=SCRYPT_LANES)
    salt = kdf.octets("salt", SALT_BYTES)
    kdf.end()
    if name != "scrypt" or cost & (cost - 1):
        kdf.refuse("only scrypt with a power of two as its cost is known; restore the file")
    return cost, salt


def _ciphertext(fields: Fields) -> bytes:
    try:
        return base64.b64decode(fields.text("ct"), validate=True)
    except binascii.Error:
        fields.refuse("field 'ct' is not valid base64; the file is damaged, restore it")


def _keyring(fields: Fields, realm: str, service: str, roots: tuple[bytes, ...], threshold: int) -> Keyring:
    signing = tuple(SigningKey(fields.as_octets(key, KEY_BYTES), realm=realm) for key in fields.items("signing"))
    decryption = _decryption_keys(fields, fields.items("decryption"), realm)
    listed = fields.object("groups")
    groups = {group: _decryption_keys(listed, listed.items(group), realm) for group in listed.names()}
    fields.end()
    return Keyring(
        service=service,
        realm=realm,
        signing=signing,
        decryption=decryption,
        groups=groups,
        roots=tuple(VerifyKey(root, realm=realm) for root in roots),
        threshold=threshold,
    )


def _decryption_keys(fields: Fields, listed: list[Any], realm: str) -> dict[bytes, DecryptionKey]:
    keys = [DecryptionKey(fields.as_octets(key, KEY_BYTES), realm=realm) for key in listed]
    return {key.kid: key for key in keys}


def _key_of(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=SCRYPT_BLOCK, p=SCRYPT_LANES).derive(passphrase)


def _check_passphrase(keyring: Keyring, *, sealed: bool) -> None:
    if keyring.is_operator and not sealed and not keyring.is_development:
        raise ConfigurationError(
            f"the key file of {keyring.service!r} needs a passphrase, because a person's key travels; "
            "`messaging keys generate` asks for one"
        )
