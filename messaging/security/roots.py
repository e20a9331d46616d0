"""Root keys: they sign trust bundles, are kept offline, and are pinned in every key file (docs/trust.md).

Two kinds of files. A *root key file* holds one private root key, always under a passphrase, and belongs to one person.
The *roots file* `trust.roots` is public: the realm, all root keys, and how many of them must sign; whoever makes a key
file or checks a bundle takes it from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messaging.errors import ConfigurationError
from messaging.security.bundle_format import check_realm
from messaging.security.keys import KEY_BYTES, SigningKey, VerifyKey
from messaging.security.passphrase import SCRYPT_COST, seal_secret, unseal_secret
from messaging.security.private_files import read_private, write_file
from messaging.security.strict_json import dump_json, load_json
from messaging.security.suite import LABEL, sha256

__all__ = [
    "PINS_FILE",
    "Pins",
    "load_pins",
    "load_root",
    "pins_of",
    "public_root",
    "roots_fingerprint",
    "write_pins",
    "write_root",
]

PINS_FILE: Final = "trust.roots"
VERSION: Final = 1
PUBLIC_MODE: Final = 0o644
PINS_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """The root keys of a realm, and how many must have signed a bundle.

    Raises:
        ConfigurationError: No root, one twice, or more signatures asked for than there are roots.
    """

    realm: str
    roots: tuple[VerifyKey, ...]
    threshold: int

    def __post_init__(self) -> None:
        check_realm(self.realm)
        if len({root.raw for root in self.roots}) != len(self.roots):
            raise ConfigurationError("one root key is named twice; name each holder's own")
        if not 1 <= self.threshold <= len(self.roots):
            raise ConfigurationError(
                f"{self.threshold} of {len(self.roots)} root keys cannot sign; ask for 1 to {len(self.roots)}"
            )


def pins_of(realm: str, roots: Sequence[str], *, threshold: int = 1) -> Pins:
    """Return pins from public keys in hex.

    Raises:
        ConfigurationError: A key is no 64 hex digits or may not be imported, or see `Pins`.
    """
    return Pins(realm=realm, roots=tuple(VerifyKey(_octets(root), realm=realm) for root in roots), threshold=threshold)


def load_pins(path: Path) -> Pins:
    """Return the pins of a roots file.

    Raises:
        ConfigurationError: Missing or damaged.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(PINS_MAX_BYTES)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read the roots file {path}: {exc.strerror}; `messaging trust root pin` makes one"
        ) from exc
    fields = load_json(raw, f"roots file {path}")
    fields.integer("v", lowest=VERSION, highest=VERSION)
    realm, threshold = fields.text("realm"), fields.integer("threshold", lowest=1)
    roots = fields.texts("roots")
    fields.end()
    return pins_of(realm, roots, threshold=threshold)


def roots_fingerprint(pins: Pins) -> str:
    """Return what people compare to know that they mean the same roots: 32 hex digits in groups of four."""
    content = {"realm": pins.realm, "threshold": pins.threshold, "roots": sorted(root.raw.hex() for root in pins.roots)}
    digits = sha256(LABEL + b"roots\0" + dump_json(content))[:16].hex()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def write_pins(pins: Pins, path: Path) -> None:
    """Write a roots file; an existing one is kept.

    Raises:
        ConfigurationError: It is there already, or cannot be written.
    """
    content = {
        "v": VERSION,
        "realm": pins.realm,
        "threshold": pins.threshold,
        "roots": [root.raw.hex() for root in pins.roots],
    }
    write_file(path, dump_json(content) + b"\n", mode=PUBLIC_MODE)


def write_root(
    root: SigningKey, path: Path, *, realm: str, passphrase: bytes, cost: int = SCRYPT_COST, replace: bool = False
) -> None:
    """Write a root key file, for its holder's eyes alone.

    Raises:
        ConfigurationError: The passphrase is empty, the file exists, or it cannot be written.
    """
    if not passphrase:
        raise ConfigurationError("a root key needs a passphrase: who signs bundles decides whom everybody trusts")
    clear = _clear(realm, root.public.raw)
    write_file(path, seal_secret(root.secret(), clear, passphrase=passphrase, cost=cost), replace=replace)


def load_root(path: Path, *, passphrase: bytes) -> tuple[SigningKey, str]:
    """Return the private root key of a file, and its realm.

    Raises:
        ConfigurationError: Missing, open to others, damaged, no root key file, or the passphrase is wrong.
    """
    fields = load_json(read_private(path), f"root key file {path}")
    fields.integer("v", lowest=VERSION, highest=VERSION)
    realm, public = fields.text("realm"), fields.octets("root", KEY_BYTES)
    secret, is_sealed = unseal_secret(fields, _clear(realm, public), passphrase=passphrase)
    fields.end()
    if not is_sealed:
        fields.refuse("it is not sealed with a passphrase, so it is nothing that this program made")
    return SigningKey(secret, realm=realm), realm


def public_root(path: Path) -> bytes:
    """Return the public half that a root key file claims, without opening it.

    Raises:
        ConfigurationError: Missing, open to others, or no root key file.
    """
    return load_json(read_private(path), f"root key file {path}").octets("root", KEY_BYTES)


def _clear(realm: str, public: bytes) -> dict[str, object]:
    return {"v": VERSION, "realm": realm, "root": public.hex()}


def _octets(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES or raw.hex() != text:
        raise ConfigurationError(f"{text!r} is no public root key: write {2 * KEY_BYTES} lower-case hex digits")
    return raw
