"""`messaging evidence export`, `verify`: a proof in one file, for somebody who has nothing of ours."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.dead_find import one_letter
from messaging.cli.exits import Exit, UsageError
from messaging.cli.files import read_input, write_output
from messaging.cli.inspect import content_record, sighting_record
from messaging.cli.key_place import KeysOption, key_path, opened
from messaging.cli.operators import AsOperator, act_as, actor_of
from messaging.cli.passphrases import PassphraseFd, PassphraseFile
from messaging.cli.render import json_text, line, print_json, shown_time
from messaging.cli.trust_sign import pins_beside
from messaging.operators import Operator
from messaging.security.bundle import KeyState
from messaging.security.bundle_format import verify_bundle
from messaging.security.evidence import (
    Evidence,
    Judgement,
    bundle_of_time,
    judge,
    look_at,
    message_key,
    pack_evidence,
    parse_evidence,
)
from messaging.security.keyring import Keyring
from messaging.security.roots import Pins, load_pins, roots_fingerprint
from messaging.security.trust import BUNDLE_FILE

__all__ = ["app"]

app = typer.Typer(
    help="Proofs of who sent what, for people without keys.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DEADLETTER", help="Sealed bytes, -, or the id of a dead letter.", show_default=False
        ),
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default or -: stdout.", show_default=False)
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust", help="Bundle of the day, or a folder with bundles; default: the keys folder.", show_default=False
        ),
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option("--roots", help="Roots file; default: what lies beside the bundle.", show_default=False),
    ] = None,
    with_content: Annotated[
        bool, typer.Option("--with-content", help="Put the key of this one message in, so that it can be read.")
    ] = False,
    folder: KeysOption = None,
    operator: AsOperator = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Write a proof that needs nothing else: the sealed bytes, the signed bundle of that day, the roots.

    Without --with-content it shows who sent what kind of message to whom and when, and nobody can read it.

    Example: [bold]messaging evidence export 0198c2f4 --with-content -o case-17.json[/bold]
    """
    body = _body(source, operator)
    sighting = look_at(body)
    place = trust if trust is not None else key_path("x", folder).parent
    pins = load_pins(roots) if roots is not None else pins_beside(_beside(place))
    bundle = _bundle(place, pins, sighting.header.iat)
    key = None
    if with_content:
        key = message_key(sighting, _keyring(folder, operator, passphrase_file, passphrase_fd))
    evidence = Evidence(sealed=body, bundle=bundle, pins=pins, message_key=key)
    judgement = judge(evidence)
    write_output(output, pack_evidence(evidence))
    for sentence in _sentences(judgement, evidence):
        line(sentence, stderr=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Evidence file; - for stdin.", show_default=False)],
    *,
    roots: Annotated[
        Path | None,
        typer.Option(
            "--roots", help="Roots file that you have from elsewhere: they must be these.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a proof, and say what it proves.

    Exit codes: 0 it holds; 1 it holds, and says less than it seems (a compromised key, a bundle of another time); 2 no
    evidence, or of other roots; 4 the signature does not hold.

    Example: [bold]messaging evidence verify case-17.json --roots trust.roots[/bold]
    """
    evidence = parse_evidence(read_input(file), where=f"evidence file {file}")
    if roots is not None and roots_fingerprint(load_pins(roots)) != roots_fingerprint(evidence.pins):
        raise UsageError(f"{file} was made under other root keys than those of {roots}: it proves nothing here")
    judgement = judge(evidence)
    is_sound = judgement.key_state is not KeyState.COMPROMISED and judgement.is_of_its_time
    content = None if judgement.content is None else content_record(judgement.sighting, judgement.content)
    if as_json:
        print_json(
            sighting_record(judgement.sighting)
            | {
                "sound": is_sound,
                "key_state": judgement.key_state.value,
                "bundle": judgement.bundle.version,
                "bundle_is_of_its_time": judgement.is_of_its_time,
                "roots": roots_fingerprint(evidence.pins),
                "content": content,
            }
        )
    else:
        for sentence in _sentences(judgement, evidence):
            line(sentence)
        if roots is None:
            line("Whether these are the right roots is for you to know: compare the fingerprint, or say --roots FILE.")
        if content is not None:
            line(json_text(content["payload"]))
    if not is_sound:
        raise typer.Exit(Exit.FAILURE)


def _sentences(judgement: Judgement, evidence: Evidence) -> list[str]:
    header, bundle = judgement.sighting.header, judgement.bundle
    address = header.address
    told = [
        f"{address.sender} sent {address.kind.word} {address.typ} to {address.aud}, issued {shown_time(header.iat)}",
        f"its signature holds under key {address.skid.hex()}, {judgement.key_state.value} in trust bundle version "
        f"{bundle.version} of realm {bundle.realm}",
        f"the bundle is signed under the roots {roots_fingerprint(evidence.pins)}",
    ]
    if judgement.key_state is KeyState.COMPROMISED:
        told.append("BUT the key was known as compromised: whoever stole it could have signed this too")
    if not judgement.is_of_its_time:
        told.append("BUT the bundle was not in force at that time: take the one of that day")
    if judgement.content is None:
        told.append("what it says is sealed: no key of this message is in the evidence")
    return told


def _body(source: str, operator: str | None) -> bytes:
    if source == "-" or Path(source).exists():
        return read_input(Path(source))

    async def find(acting: Operator) -> bytes:
        return (await one_letter(acting, [source])).original

    return act_as(actor_of(operator), find)


def _beside(place: Path) -> Path:
    folder = place if place.is_dir() else place.parent
    return folder.parent if folder.name == "bundles" else folder


def _bundle(place: Path, pins: Pins, at_ms: int) -> bytes:
    paths = [place]
    if place.is_dir():
        paths = [*sorted((place / "bundles").glob("*.bundle")), *sorted(place.glob("*.bundle"))]
    if not paths:
        raise UsageError(f"no {BUNDLE_FILE} in {place}; name the bundle of that day with --trust")
    raws = [read_input(path) for path in paths]
    verified = [verify_bundle(raw, roots=pins.roots, threshold=pins.threshold, realm=pins.realm) for raw in raws]
    return bundle_of_time(zip(verified, raws, strict=True), at_ms)


def _keyring(folder: Path | None, who: str | None, file: Path | None, fd: int | None) -> Keyring:
    identity = who if who is None or ":" in who else f"ops:{who}"
    keyring, _ = opened(key_path(identity or actor_of(None).name, folder), file=file, fd=fd)
    return keyring
