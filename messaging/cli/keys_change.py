"""`messaging keys export`, `passwd`, `forget`: what is done with a key file that exists."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.files import write_output
from messaging.cli.key_place import KeysOption, key_path, keys_folder, opened
from messaging.cli.passphrases import PassphraseFd, PassphraseFile, new_passphrase
from messaging.cli.render import line
from messaging.security.bundle import TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.public_part import export_part, fingerprint, part_of
from messaging.security.rotation_steps import without_keys
from messaging.security.trust import BUNDLE_FILE

__all__ = ["export", "forget", "passwd"]

_Identity = Annotated[
    str, typer.Argument(metavar="IDENTITY|FILE", help="orders, ops:alice, or a key file.", show_default=False)
]


def export(
    identity: _Identity,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default or -: stdout.", show_default=False)
    ] = None,
    folder: KeysOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Write the public part of a key file, for the one who signs the trust bundle.

    Compare the fingerprint with that person by another way than the one that the file takes.

    Example: [bold]messaging keys export orders -o orders.json[/bold]
    """
    keyring, _ = opened(key_path(identity, folder), file=passphrase_file, fd=passphrase_fd)
    write_output(output, export_part(keyring))
    line(f"{keyring.service} in realm {keyring.realm}: fingerprint {fingerprint(part_of(keyring))}", stderr=True)


def passwd(
    identity: _Identity,
    *,
    folder: KeysOption = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Leave the file without a passphrase; not of persons.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    new_file: Annotated[
        Path | None,
        typer.Option("--new-passphrase-file", help="Take the new one from this file's first line.", show_default=False),
    ] = None,
    new_fd: Annotated[
        int | None,
        typer.Option("--new-passphrase-fd", metavar="N", min=0, help="Read the new one from here.", show_default=False),
    ] = None,
) -> None:
    """Change the passphrase of a key file. The keys stay the same: copies elsewhere keep the old passphrase.

    Example: [bold]messaging keys passwd ops:alice[/bold]
    """
    path = key_path(identity, folder)
    keyring, _ = opened(path, file=passphrase_file, fd=passphrase_fd)
    if remove and (new_file is not None or new_fd is not None):
        raise UsageError("--remove and a new passphrase: say one of them")
    passphrase = None if remove else new_passphrase(keyring.service, file=new_file, fd=new_fd, ask=True)
    write_keyring(keyring, path, passphrase=passphrase, replace=True)
    line(f"{path} {'has no passphrase any more' if remove else 'has the new passphrase'}.")


def forget(
    identity: _Identity,
    kids: Annotated[list[str], typer.Argument(metavar="KEYID...", help="16 hex digits each.", show_default=False)],
    *,
    folder: KeysOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Destroy private keys that the bundle beside the key file gives nobody any more: the last step of a rotation.

    What is sealed to them can never be opened again. For key files that are not where the bundle is made; there
    `messaging keys rotate` does it.

    Example: [bold]messaging keys forget orders 0c5f1a2b3c4d5e6f[/bold]
    """
    path = key_path(identity, folder)
    keyring, passphrase = opened(path, file=passphrase_file, fd=passphrase_fd)
    _check_forgettable(keyring, frozenset(kids), _bundle_beside(keyring, path))
    write_keyring(without_keys(keyring, frozenset(kids)), path, passphrase=passphrase, replace=True)
    line(f"{path} holds {', '.join(kids)} no more. Replace its copies as well.")


def _bundle_beside(keyring: Keyring, path: Path) -> TrustBundle:
    bundle = keys_folder(path.parent) / BUNDLE_FILE
    return verify_bundle(bundle.read_bytes(), roots=keyring.roots, threshold=keyring.threshold, realm=keyring.realm)


def _check_forgettable(keyring: Keyring, kids: frozenset[str], bundle: TrustBundle) -> None:
    held = {key.kid.hex() for key in keyring.signing} | {kid.hex() for kid in keyring.decryption}
    held |= {kid.hex() for keys in keyring.groups.values() for kid in keys}
    states = {kid.hex(): entry.state for kid, entry in bundle.signing.get(keyring.service, {}).items()}
    states |= {entry.key.kid.hex(): entry.state for entries in bundle.encryption.values() for entry in entries}
    for kid in sorted(kids):
        if kid not in held:
            raise UsageError(f"{keyring_file(keyring.service)} holds no key {kid}; it holds {', '.join(sorted(held))}")
        state = states.get(kid)
        if state is not None and state.is_accepted:
            raise UsageError(
                f"key {kid} is {state.value} in trust bundle version {bundle.version}: messages need it; finish the "
                "rotation first (`messaging keys rotate`)"
            )
