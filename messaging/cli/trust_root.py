"""`messaging trust root`: the keys that sign bundles. Each belongs to one person and is kept offline."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.passphrases import PassphraseFd, PassphraseFile, new_passphrase
from messaging.cli.render import line, plain_line, print_json
from messaging.errors import ConfigurationError
from messaging.security.bundle_format import DEVELOPMENT_REALM, check_realm
from messaging.security.keys import SigningKey
from messaging.security.roots import load_pins, pins_of, public_root, roots_fingerprint, write_pins, write_root

__all__ = ["app"]

app = typer.Typer(
    help="Root keys: they sign trust bundles and are kept offline.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(help="Root key file to make, such as root-1.root.", show_default=False)],
    *,
    realm: Annotated[str, typer.Option(help="Realm, such as prod-eu: its keys mean nothing elsewhere.")],
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a root key, sealed with a passphrase, and print its public half for the roots file.

    Do it on a machine without network, once for each holder; two of three holders are a good beginning.

    Example: [bold]messaging trust root generate root-1.root --realm prod-eu[/bold]
    """
    if check_realm(realm).startswith(DEVELOPMENT_REALM):
        raise UsageError(f"realm {realm} is for development: `messaging trust init --dev` makes its root; name another")
    if file.exists():
        raise ConfigurationError(f"{file} exists already and is kept; name another file")
    root = SigningKey.generate(realm)
    passphrase = new_passphrase(f"root key {file.name}", file=passphrase_file, fd=passphrase_fd, ask=True)
    write_root(root, file, realm=realm, passphrase=passphrase or b"")
    public = root.public.raw.hex()
    if as_json:
        print_json({"file": file, "realm": realm, "kid": root.kid.hex(), "public": public})
        return
    line(f"Wrote {file}, which stays offline. Its public half, for `messaging trust root pin`:")
    line(public)


@app.command()
def public(
    file: Annotated[Path, typer.Argument(help="Root key file.", show_default=False)],
) -> None:
    """Print the public half of a root key file, for `messaging trust root pin`; no passphrase is needed.

    Example: [bold]messaging trust root public root-1.root[/bold]
    """
    plain_line(public_root(file).hex())


@app.command()
def pin(
    roots: Annotated[
        list[str], typer.Argument(metavar="PUBLIC...", help="Public root keys, 64 hex digits each.", show_default=False)
    ],
    *,
    realm: Annotated[str, typer.Option(help="Realm of the root keys.")],
    threshold: Annotated[int, typer.Option(help="How many of them must sign a bundle.", min=1)] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Roots file to make.")] = Path("trust.roots"),
) -> None:
    """Write the roots file: whom everybody of a realm trusts to sign bundles. It is public; guard it from changes.

    Example: [bold]messaging trust root pin 5866…66 1f20…9c --realm prod-eu --threshold 2[/bold]
    """
    pins = pins_of(realm, roots, threshold=threshold)
    write_pins(pins, output)
    line(f"Wrote {output}: {threshold} of {len(roots)} root keys sign for realm {realm}.")
    line(f"Fingerprint {roots_fingerprint(pins)}")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Roots file.")] = Path("trust.roots"),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a roots file and its fingerprint, which people compare.

    Example: [bold]messaging trust root show trust.roots[/bold]
    """
    pins = load_pins(file)
    keys = [root.raw.hex() for root in pins.roots]
    if as_json:
        print_json(
            {"realm": pins.realm, "threshold": pins.threshold, "roots": keys, "fingerprint": roots_fingerprint(pins)}
        )
        return
    line(f"{pins.threshold} of {len(keys)} root keys sign for realm {pins.realm}:")
    for key in keys:
        line(f"  {key}")
    line(f"Fingerprint {roots_fingerprint(pins)}")
