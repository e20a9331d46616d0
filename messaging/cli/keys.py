"""`messaging keys`: key files of services and operators. Private keys are written once and never shown."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.exits import NothingMatchedError, UsageError
from messaging.cli.key_head import KeyHead, key_files_in, read_head
from messaging.cli.render import line, print_json, table
from messaging.core.names import is_operator, is_sender
from messaging.security.bundle_format import DEVELOPMENT_REALM
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import KEY_BYTES, VerifyKey
from messaging.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="Key files: the identity of each service and operator.", no_args_is_help=True, rich_markup_mode="rich"
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def generate(
    identity: Annotated[
        str, typer.Argument(metavar="IDENTITY", help="A service such as orders, or ops:alice.", show_default=False)
    ],
    *,
    folder: Annotated[
        Path | None, typer.Option("--keys", help="Where to write; default: MESSAGING_KEYS.", show_default=False)
    ] = None,
    realm: Annotated[
        str | None, typer.Option(help="Realm; default: that of the key files already there.", show_default=False)
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            help="Public root key to trust, 64 hex digits; repeat for several. Default: those of the key files there.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(help="How many roots must sign a bundle.", min=1, show_default=False)
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="Seal the file with this file's first line; operators are asked else.", show_default=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make the keys of one identity and print the public ones, which go into the trust bundle.

    For development, `messaging trust init --dev` makes everything in one go.

    Example: [bold]messaging keys generate ops:alice --keys keys[/bold]
    """
    if not is_sender(identity):
        raise UsageError(
            f"{identity!r} is no identity: name a service such as orders, or an operator such as ops:alice"
        )
    place = _folder(folder)
    pins = _pins(place, realm=realm, roots=root or (), threshold=threshold)
    if pins.realm.startswith(DEVELOPMENT_REALM):
        raise UsageError(
            f"realm {pins.realm} is for development: `messaging trust init --dev {place} --from MODULE:SERVICE` adds "
            "services to it, with bundle and all"
        )
    keyring = Keyring.generate(
        identity,
        realm=pins.realm,
        roots=[VerifyKey(_octets(text), realm=pins.realm) for text in pins.roots],
        threshold=pins.threshold,
    )
    path = place / keyring_file(identity)
    write_keyring(keyring, path, passphrase=_new_passphrase(identity, passphrase_file))
    _show_public(keyring, path, as_json=as_json)


@app.command()
def show(
    folder: Annotated[
        Path | None, typer.Argument(help="Keys folder, or one key file; default: MESSAGING_KEYS.", show_default=False)
    ] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Show whose key files there are and what they pin, without opening them.

    Example: [bold]messaging keys show keys[/bold]
    """
    place = _folder(folder)
    paths = key_files_in(place) if place.is_dir() else [place]
    if not paths:
        raise NothingMatchedError(f"no key files in {place}; make some with `messaging trust init --dev`")
    heads = [(path, read_head(path)) for path in paths]
    if as_json:
        print_json(
            [
                {
                    "file": path,
                    "identity": head.service,
                    "realm": head.realm,
                    "roots": head.roots,
                    "threshold": head.threshold,
                    "passphrase": head.is_sealed,
                }
                for path, head in heads
            ]
        )
        return
    table(
        "",
        ("IDENTITY", "FILE", "REALM", "ROOTS", "PASSPHRASE"),
        [
            (
                head.service,
                path.name,
                head.realm,
                f"{head.threshold} of {' '.join(root[:16] for root in head.roots)}",
                "yes" if head.is_sealed else "no",
            )
            for path, head in heads
        ],
    )


def _folder(given: Path | None) -> Path:
    folder = given if given is not None else Settings().keys
    if folder is None:
        raise UsageError("say where the keys are: name the folder, or set MESSAGING_KEYS")
    if not folder.exists():
        raise UsageError(f"there is no {folder}; `messaging trust init --dev {folder} --from MODULE:SERVICE` makes one")
    return folder


def _pins(folder: Path, *, realm: str | None, roots: Sequence[str], threshold: int | None) -> KeyHead:
    """Return what a new key file pins: what was given, else what the key files beside it pin."""
    there = {(head.realm, head.roots, head.threshold): head for head in map(read_head, key_files_in(folder))}
    if realm is None and not roots and len(there) == 1:
        return next(iter(there.values()))
    if realm is None or not roots:
        found = "the key files there disagree" if there else "there are no key files to take them from"
        raise UsageError(f"say --realm and --root: {found}")
    return KeyHead(service="", realm=realm, roots=tuple(roots), threshold=threshold or 1, is_sealed=False)


def _octets(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise UsageError(f"--root {text}: a public root key is {2 * KEY_BYTES} hex digits")
    return raw


def _new_passphrase(identity: str, file: Path | None) -> bytes | None:
    if file is not None:
        lines = file.read_bytes().splitlines()
        if not lines or not lines[0]:
            raise UsageError(f"{file}: its first line is the passphrase, and it is empty")
        return lines[0]
    if not is_operator(identity):
        return None
    if not sys.stdin.isatty():
        raise UsageError(f"the key file of {identity} needs a passphrase: say --passphrase-file")
    typed: str = typer.prompt(f"New passphrase of {identity}", hide_input=True, confirmation_prompt=True, err=True)
    return typed.encode()


def _show_public(keyring: Keyring, path: Path, *, as_json: bool) -> None:
    signing = [{"kid": key.kid.hex(), "pub": key.public.raw.hex()} for key in keyring.signing]
    encryption = [{"kid": key.kid.hex(), "pub": key.public.raw.hex()} for key in keyring.decryption.values()]
    if as_json:
        print_json(
            {"identity": keyring.service, "file": path, "realm": keyring.realm, "sign": signing, "enc": encryption}
        )
        return
    line(f"Wrote {path}. Its public keys, for the trust bundle:")
    rows = [("sign", key["kid"], key["pub"]) for key in signing] + [
        ("enc", key["kid"], key["pub"]) for key in encryption
    ]
    table("", ("ROLE", "KEY ID", "PUBLIC KEY"), rows)
