"""Key files: a keyring as JSON, sealed by a passphrase or guarded by permissions alone (docs/trust.md, "Key files").

`passphrase` says how the secret part is sealed. A person's key always has a passphrase.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from messaging.errors import ConfigurationError
from messaging.security.keyring import Keyring
from messaging.security.keys import DECRYPTION_KEY_BYTES, KEY_BYTES, DecryptionKey, SigningKey, VerifyKey
from messaging.security.passphrase import SCRYPT_COST, seal_secret, unseal_secret
from messaging.security.private_files import read_private, write_file
from messaging.security.strict_json import Fields, dump_json, load_json

__all__ = ["decode_keyring", "encode_keyring", "keyring_file", "load_keyring", "write_keyring"]

VERSION: Final = 1


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
    clear = _clear(keyring.realm, keyring.service, [root.raw for root in keyring.roots], keyring.threshold)
    secret = dump_json(
        {
            "signing": [key.secret().hex() for key in keyring.signing],
            "decryption": [key.secret().hex() for key in keyring.decryption.values()],
            "groups": {group: [key.secret().hex() for key in keys.values()] for group, keys in keyring.groups.items()},
        }
    )
    return seal_secret(secret, clear, passphrase=passphrase, cost=cost)


def decode_keyring(raw: bytes, *, passphrase: bytes | None, where: str = "key file") -> Keyring:
    """Return the keyring from the content of a key file; raises as `load_keyring` does."""
    fields = load_json(raw, where)
    fields.integer("v", lowest=VERSION, highest=VERSION)
    realm, service = fields.text("realm"), fields.text("service")
    roots = tuple(fields.as_octets(root, KEY_BYTES) for root in fields.items("roots"))
    threshold = fields.integer("threshold", lowest=1)
    clear = _clear(realm, service, roots, threshold)
    secret, is_sealed = unseal_secret(fields, clear, passphrase=passphrase)
    fields.end()
    keyring = _keyring(load_json(secret, where), realm, service, roots, threshold)
    _check_passphrase(keyring, sealed=is_sealed)
    return keyring


def _clear(realm: str, service: str, roots: Sequence[bytes], threshold: int) -> dict[str, object]:
    return {
        "v": VERSION,
        "realm": realm,
        "service": service,
        "roots": [root.hex() for root in roots],
        "threshold": threshold,
    }


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
    sizes = tuple(DECRYPTION_KEY_BYTES.values())
    keys = [DecryptionKey(fields.as_octets(key, *sizes), realm=realm) for key in listed]
    return {key.kid: key for key in keys}


def _check_passphrase(keyring: Keyring, *, sealed: bool) -> None:
    if keyring.is_operator and not sealed and not keyring.is_development:
        raise ConfigurationError(
            f"the key file of {keyring.service!r} needs a passphrase, because a person's key travels; "
            "`messaging keys generate` asks for one"
        )
