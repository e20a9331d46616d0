"""`messaging trust sign`, `verify`, `diff`: what people do with a draft before everybody obeys it."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.ambient import real_ambient
from messaging.cli.drafts import show_draft
from messaging.cli.exits import Exit, UsageError
from messaging.cli.files import read_input
from messaging.cli.key_head import key_files_in, read_head
from messaging.cli.key_place import TrustOption, trust_folder
from messaging.cli.passphrases import PassphraseFd, PassphraseFile, known_passphrase
from messaging.cli.render import line, print_json, shown_age, shown_time
from messaging.security.bundle import TrustBundle
from messaging.security.bundle_diff import differences
from messaging.security.bundle_format import parse_content, signers_of, split_bundle
from messaging.security.roots import PINS_FILE, Pins, load_pins, load_root, pins_of, roots_fingerprint
from messaging.security.trust import BUNDLE_FILE
from messaging.security.trust_folder import read_content

__all__ = ["diff", "pins_beside", "sign", "verify"]

_Roots = Annotated[
    Path | None,
    typer.Option("--roots", help="Roots file; default: trust.roots beside it, else a key file's.", show_default=False),
]


def sign(
    *,
    root: Annotated[Path, typer.Option("--root", help="Root key file of one holder.", show_default=False)],
    trust: TrustOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Sign the draft with one root key, after showing in words what it changes.

    The signature that reaches the threshold puts the bundle in force: the file is replaced in one rename, and a copy
    is kept in bundles/. Copy trust.bundle to every keys folder then.

    Example: [bold]messaging trust sign --root root-1.root --trust trust[/bold]
    """
    folder = trust_folder(trust)
    show_draft(folder)
    if not yes and not typer.confirm("Sign this", err=True):
        line("Nothing was signed.", stderr=True)
        raise typer.Exit(Exit.FAILURE)
    key, _ = load_root(
        root, passphrase=known_passphrase(f"root key {root.name}", file=passphrase_file, fd=passphrase_fd)
    )
    done = folder.sign(key, now_ms=real_ambient().now_ms())
    if not done.is_in_force:
        line(f"Version {done.version} has {done.signed} of {done.threshold} signatures; the next holder signs it now.")
        return
    line(f"Trust bundle version {done.version} is in force: copy {folder.path / BUNDLE_FILE} to every keys folder.")


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="Bundle or draft, or - ; default: the bundle of --trust.", show_default=False)
    ] = None,
    *,
    trust: TrustOption = None,
    roots: _Roots = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check form and signatures of a bundle or draft against the roots, and say until when it is valid.

    Exit codes: 0 signed by enough roots, 1 not (yet), or expired.

    Example: [bold]messaging trust verify trust.bundle --roots trust.roots[/bold]
    """
    path = file if file is not None else trust_folder(trust).path / BUNDLE_FILE
    raw = read_input(path)
    pins = load_pins(roots) if roots is not None else pins_beside(path.parent)
    bundle = parse_content(split_bundle(raw)[0], roots=pins.roots, realm=pins.realm)
    signed = len(signers_of(raw, pins.roots))
    left_s = (bundle.expires_at_ms - real_ambient().now_ms()) / 1000
    is_good = signed >= pins.threshold and left_s > 0
    if as_json:
        print_json(_record(bundle, pins, signed=signed, is_good=is_good))
    else:
        line(f"version {bundle.version} of realm {bundle.realm}, issued {shown_time(bundle.issued_at_ms)}")
        line(f"signed by {signed} of {len(pins.roots)} root keys, {pins.threshold} are needed")
        until = f"valid for {shown_age(left_s)}" if left_s > 0 else f"EXPIRED {shown_age(-left_s)} ago"
        line(f"{until}, until {shown_time(bundle.expires_at_ms)}")
        line(f"roots {roots_fingerprint(pins)}")
    if not is_good:
        raise typer.Exit(Exit.FAILURE)


def diff(
    old: Annotated[Path, typer.Argument(help="Bundle or draft; - for stdin.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Bundle or draft; - for stdin.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of sentences.")] = False,
) -> None:
    """Say in words what changes from one bundle to another. Signatures are for `messaging trust verify`.

    Example: [bold]messaging trust diff trust/trust.bundle trust/trust.draft[/bold]
    """
    sentences = differences(read_content(read_input(old)), read_content(read_input(new)))
    if as_json:
        print_json(sentences)
        return
    for sentence in sentences or ["Nothing changes."]:
        line(sentence)


def pins_beside(folder: Path) -> Pins:
    """Return the roots that a folder pins: by its roots file, else by a key file.

    Raises:
        UsageError: It holds neither.
    """
    if (folder / PINS_FILE).exists():
        return load_pins(folder / PINS_FILE)
    paths = key_files_in(folder)
    if not paths:
        raise UsageError(
            f"no {PINS_FILE} and no key file in {folder} says which root keys to trust; put one there, or say --roots "
            "FILE to a command that takes it"
        )
    head = read_head(paths[0])
    return pins_of(head.realm, head.roots, threshold=head.threshold)


def _record(bundle: TrustBundle, pins: Pins, *, signed: int, is_good: bool) -> dict[str, object]:
    return {
        "version": bundle.version,
        "realm": bundle.realm,
        "issued_at_ms": bundle.issued_at_ms,
        "expires_at_ms": bundle.expires_at_ms,
        "signed": signed,
        "threshold": pins.threshold,
        "roots": roots_fingerprint(pins),
        "good": is_good,
    }
