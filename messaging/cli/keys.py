"""`messaging keys`: key files of services and operators. Private keys are written once and never shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from messaging.cli import keys_change, keys_rotate
from messaging.cli.exits import NothingMatchedError, UsageError
from messaging.cli.key_head import KeyHead, key_files_in, read_head
from messaging.cli.key_place import KeysOption, keys_folder
from messaging.cli.passphrases import PassphraseFd, PassphraseFile, new_passphrase
from messaging.cli.render import line, print_json, table
from messaging.core.names import is_sender
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_format import DEVELOPMENT_REALM
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import KEY_BYTES, DecryptionKey, VerifyKey
from messaging.security.public_part import fingerprint, part_of
from messaging.security.roots import load_pins
from messaging.security.suite import SUITE_1, SUITE_2

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
    folder: KeysOption = None,
    roots: Annotated[
        Path | None,
        typer.Option(help="Roots file to pin, trust.roots: realm, root keys, threshold.", show_default=False),
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
    suite: Annotated[
        int, typer.Option(help="2: an encryption key of the post-quantum suite too.", min=SUITE_1, max=SUITE_2)
    ] = SUITE_1,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase; of operators it is asked anyway.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: _Json = False,
) -> None:
    """Make the keys of one identity and print the public ones, which go into the trust bundle.

    An operator gets a key of group:ops too, to read what is sealed to the operators. For development,
    `messaging trust init --dev` makes everything in one go.

    Example: [bold]messaging keys generate ops:alice --keys keys --roots trust.roots[/bold]
    """
    if not is_sender(identity):
        raise UsageError(
            f"{identity!r} is no identity: name a service such as orders, or an operator such as ops:alice"
        )
    place = keys_folder(folder)
    pins = _pins(place, file=roots, realm=realm, roots=root or (), threshold=threshold)
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
        suites=range(SUITE_1, suite + 1),
    )
    if keyring.is_operator:
        keys = [DecryptionKey.generate(pins.realm, number) for number in range(SUITE_1, suite + 1)]
        keyring = keyring.with_group(OPS_GROUP, keys)
    path = place / keyring_file(identity)
    words = new_passphrase(
        identity, file=passphrase_file, fd=passphrase_fd, ask=passphrase or (keyring.is_operator and not path.exists())
    )
    write_keyring(keyring, path, passphrase=words)
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
    place = keys_folder(folder)
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


def _pins(
    folder: Path, *, file: Path | None, realm: str | None, roots: Sequence[str], threshold: int | None
) -> KeyHead:
    """Return what a new key file pins: a roots file, or what was given, else what the key files beside it pin."""
    if file is not None:
        if realm is not None or roots or threshold is not None:
            raise UsageError("--roots names realm, root keys and threshold; leave out --realm, --root and --threshold")
        pins = load_pins(file)
        return _head(pins.realm, [key.raw.hex() for key in pins.roots], pins.threshold)
    there = {(head.realm, head.roots, head.threshold): head for head in map(read_head, key_files_in(folder))}
    if realm is None and not roots and len(there) == 1:
        return next(iter(there.values()))
    if realm is None or not roots:
        found = "the key files there disagree" if there else "there are no key files to take them from"
        raise UsageError(f"say --roots FILE, or --realm and --root: {found}")
    return _head(realm, roots, threshold or 1)


def _head(realm: str, roots: Sequence[str], threshold: int) -> KeyHead:
    return KeyHead(service="", realm=realm, roots=tuple(roots), threshold=threshold, is_sealed=False)


def _octets(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise UsageError(f"--root {text}: a public root key is {2 * KEY_BYTES} hex digits")
    return raw


def _show_public(keyring: Keyring, path: Path, *, as_json: bool) -> None:
    part = part_of(keyring)
    rows = [("sign", key.kid.hex(), key.raw.hex()) for key in part.signing]
    rows += [("enc", key.kid.hex(), key.raw.hex()) for key in part.encryption]
    rows += [(group, key.kid.hex(), key.raw.hex()) for group, keys in part.groups.items() for key in keys]
    if as_json:
        listed = [{"role": role, "kid": kid, "pub": public} for role, kid, public in rows]
        record = {"identity": keyring.service, "file": path, "realm": keyring.realm, "fingerprint": fingerprint(part)}
        print_json({**record, **{role: [_plain(row) for row in listed if row["role"] == role] for role, _, _ in rows}})
        return
    line(f"Wrote {path}. Its public keys:")
    table("", ("ROLE", "KEY ID", "PUBLIC KEY"), [(role, kid, _shortened(public)) for role, kid, public in rows])
    line(f"Fingerprint {fingerprint(part)}")
    line(f"For the trust bundle: messaging keys export {keyring.service} -o {keyring.service.replace(':', '.')}.json")


def _shortened(public: str) -> str:
    # A key of suite 2 fills a screen; the id and the fingerprint stand for all of it.
    return public if len(public) == 2 * KEY_BYTES else f"{public[:32]}… ({len(public) // 2} bytes)"


def _plain(row: dict[str, str]) -> dict[str, str]:
    return {"kid": row["kid"], "pub": row["pub"]}


app.command("export")(keys_change.export)
app.command("passwd")(keys_change.passwd)
app.command("rotate")(keys_rotate.rotate)
app.command("forget")(keys_change.forget)
