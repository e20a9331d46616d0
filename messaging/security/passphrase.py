"""Secrets in a file, sealed by a passphrase or guarded by permissions alone (docs/trust.md, "Key files").

The passphrase goes through scrypt, whose cost the file names; the fields in clear are authenticated with the secret
part, so nobody swaps the pinned roots under an untouched secret.
"""

import base64
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from messaging.security.strict_json import Fields, dump_json
from messaging.security.suite import fresh_bytes

__all__ = ["SCRYPT_COST", "seal_secret", "unseal_secret"]

SCRYPT_COST: Final = 1 << 17
# Reading: enough that a file of later years opens, bounded so that a hostile one cannot eat the memory (1 GiB).
SCRYPT_COST_MAX: Final = 1 << 20
SCRYPT_COST_MIN: Final = 1 << 10
SCRYPT_BLOCK: Final = 8
SCRYPT_LANES: Final = 1
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12


def seal_secret(
    secret: bytes, clear: Mapping[str, object], *, passphrase: bytes | None, cost: int = SCRYPT_COST
) -> bytes:
    """Return the content of a file that holds a secret.

    Args:
        secret: What only the owner of the passphrase may see.
        clear: Fields beside it, readable by everybody and authenticated where there is a passphrase.
        passphrase: None leaves the secret in clear.
        cost: Scrypt's cost, a power of two.
    """
    whole: dict[str, object] = {**clear, "kdf": None, "nonce": None}
    if passphrase is not None:
        salt, nonce = fresh_bytes(SALT_BYTES), fresh_bytes(NONCE_BYTES)
        whole["kdf"] = _kdf(cost, salt)
        whole["nonce"] = nonce.hex()
        # Key and nonce are fresh for each writing: the salt makes the key new even under one passphrase.
        secret = AESGCM(_key_of(passphrase, salt, cost)).encrypt(nonce, secret, dump_json(whole))
    return dump_json({**whole, "ct": base64.b64encode(secret).decode()}) + b"\n"


def unseal_secret(fields: Fields, clear: Mapping[str, object], *, passphrase: bytes | None) -> tuple[bytes, bool]:
    """Take kdf, nonce and ciphertext from a file's fields and return the secret, and whether it was sealed.

    Args:
        fields: The file, the fields in clear already taken.
        clear: Those fields, as they were read.
        passphrase: Where the file has one.

    Raises:
        ConfigurationError: Damaged, sealed and no passphrase given, or a wrong one.
    """
    kdf = fields.optional_object("kdf")
    if kdf is None:
        if fields.optional_integer("nonce") is not None:
            fields.refuse("a nonce without a kdf; the file is damaged, restore it")
        return _ciphertext(fields), False
    cost, salt = _read_kdf(kdf)
    nonce = fields.octets("nonce", NONCE_BYTES)
    sealed = _ciphertext(fields)
    if passphrase is None:
        fields.refuse("it is sealed with a passphrase; name the file that holds it in MESSAGING_PASSPHRASE_FILE")
    whole = {**clear, "kdf": _kdf(cost, salt), "nonce": nonce.hex()}
    try:
        return AESGCM(_key_of(passphrase, salt, cost)).decrypt(nonce, sealed, dump_json(whole)), True
    except InvalidTag:
        fields.refuse("the passphrase is wrong, or the file has been altered; try again or restore it")


def _kdf(cost: int, salt: bytes) -> dict[str, object]:
    return {"name": "scrypt", "n": cost, "r": SCRYPT_BLOCK, "p": SCRYPT_LANES, "salt": salt.hex()}


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
    except ValueError:
        # Bad base64, and text that is no ASCII.
        fields.refuse("field 'ct' is not valid base64; the file is damaged, restore it")


def _key_of(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=SCRYPT_BLOCK, p=SCRYPT_LANES).derive(passphrase)
