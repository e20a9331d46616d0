"""Where key files and bundles are: the folders that verbs work on, and opening what lies there."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.key_head import read_head
from messaging.cli.passphrases import known_passphrase
from messaging.errors import ConfigurationError
from messaging.security.keyfile import keyring_file, load_keyring
from messaging.security.keyring import Keyring
from messaging.security.roots import PINS_FILE
from messaging.security.trust_folder import TrustFolder
from messaging.settings import Settings

__all__ = ["KeysOption", "TrustOption", "key_path", "keys_folder", "opened", "trust_folder", "trust_place"]


KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", "--folder", help="Folder of the key files; default: MESSAGING_KEYS.", show_default=False),
]
TrustOption = Annotated[
    Path | None,
    typer.Option(
        "--trust", help="Folder of trust.roots, bundle and draft; default: MESSAGING_KEYS.", show_default=False
    ),
]


def keys_folder(given: Path | None) -> Path:
    """Return the folder of the key files.

    Raises:
        UsageError: None is named, or it is not there.
    """
    folder = given if given is not None else Settings().keys
    if folder is None:
        raise UsageError("say where the keys are: name the folder, or set MESSAGING_KEYS")
    if not folder.exists():
        raise UsageError(
            f"there is no {folder}; `messaging trust init --dev {folder} --from MODULE:SERVICE` makes one for "
            "development, `mkdir -m 700` one for real keys"
        )
    return folder


def key_path(identity: str, folder: Path | None) -> Path:
    """Return the key file that a name on the command line means: an identity in the keys folder, or a file."""
    named = Path(identity)
    if named.suffix == ".key":
        return named
    return keys_folder(folder) / keyring_file(identity)


def opened(path: Path, *, file: Path | None, fd: int | None) -> tuple[Keyring, bytes | None]:
    """Return the keyring of a key file, and the passphrase that opened it if it has one.

    Raises:
        ConfigurationError: It does not open.
        UsageError: It needs a passphrase and none was given.
    """
    head = read_head(path)
    if not head.is_sealed:
        return load_keyring(path), None
    passphrase = known_passphrase(head.service, file=file or Settings().passphrase_file, fd=fd)
    return load_keyring(path, passphrase=passphrase), passphrase


def trust_place(given: Path | None) -> Path:
    """Return the folder where bundles are made.

    Raises:
        UsageError: None is named.
    """
    folder = given if given is not None else Settings().keys
    if folder is None:
        raise UsageError("say where trust.roots, bundle and draft are: --trust FOLDER, or set MESSAGING_KEYS")
    return folder


def trust_folder(given: Path | None) -> TrustFolder:
    """Return the folder where bundles are made, opened.

    Raises:
        UsageError: None is named.
        ConfigurationError: It holds no roots file.
    """
    place = trust_place(given)
    if not (place / PINS_FILE).exists():
        raise ConfigurationError(
            f"no {PINS_FILE} in {place}: trust is changed where it was made; name that folder with --trust "
            "(development keys: run `messaging trust init --dev` again)"
        )
    return TrustFolder(place)
