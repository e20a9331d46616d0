"""What a key file says in clear: whose it is, what it pins. Claims until it is opened, enough to list and copy."""

import json
from dataclasses import dataclass
from pathlib import Path

from messaging.errors import ConfigurationError
from messaging.security.private_files import read_private

__all__ = ["KeyHead", "key_files_in", "read_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHead:
    """The clear part of a key file.

    Attributes:
        service: The service or operator.
        realm: The realm of its keys.
        roots: The pinned root keys, 64 hex digits each.
        threshold: How many of them must have signed a bundle.
        is_sealed: Whether a passphrase is needed to open it.
    """

    service: str
    realm: str
    roots: tuple[str, ...]
    threshold: int
    is_sealed: bool


def key_files_in(folder: Path) -> list[Path]:
    """Return the key files of a folder, by name."""
    return sorted(folder.glob("*.key"))


def read_head(path: Path) -> KeyHead:
    """Return the clear part of a key file.

    Raises:
        ConfigurationError: missing, open to others, or no key file.
    """
    raw = read_private(path)
    try:
        plain = json.loads(raw)
        return KeyHead(
            service=str(plain["service"]),
            realm=str(plain["realm"]),
            roots=tuple(str(root) for root in plain["roots"]),
            threshold=int(plain["threshold"]),
            is_sealed=plain["kdf"] is not None,
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no key file, or it is damaged: restore it") from error
