"""`messaging inspect`, `open`, `reveal`: one sealed message, without a key, with a key file, or with its own key."""

import base64
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from messaging.cli.exits import UsageError
from messaging.cli.files import read_input
from messaging.cli.key_head import key_files_in
from messaging.cli.key_place import KeysOption, key_path, opened
from messaging.cli.passphrases import PassphraseFd, PassphraseFile
from messaging.cli.render import escaped, line, plain_line, print_json, shown_time
from messaging.cli.trust_sign import pins_beside
from messaging.core.codec import unpack
from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, Kind
from messaging.errors import InvalidPayloadError
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.content import Content
from messaging.security.evidence import MESSAGE_KEY_BYTES, Sighting, look_at, message_key, open_with, prove
from messaging.security.roots import load_pins

__all__ = ["content_record", "inspect", "open_", "read_trust", "reveal", "sighting_record"]

_File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Sealed bytes as they were on the wire; - for stdin.", show_default=False)
]
_As = Annotated[
    str | None,
    typer.Option("--as", metavar="IDENTITY", help="Whose key file, such as ops:alice or orders.", show_default=False),
]
_Trust = Annotated[
    Path | None,
    typer.Option("--trust", help="Bundle of the day, or a folder with one: checks the signature.", show_default=False),
]
_Roots = Annotated[
    Path | None, typer.Option("--roots", help="Roots file; default: what lies beside the bundle.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def inspect(file: _File, *, trust: _Trust = None, roots: _Roots = None, as_json: _Json = False) -> None:
    """Show who says to have sent what to whom, and when, without any key; with --trust, whether it is true.

    Exit codes: 0 shown, 4 the signature does not hold or the file holds no sealed message.

    Example: [bold]messaging inspect message.bin --trust trust/bundles/00000007.bundle[/bold]
    """
    sighting = look_at(read_input(file))
    bundle = None if trust is None else read_trust(trust, roots)
    state = None if bundle is None else prove(sighting, bundle)
    record = sighting_record(sighting) | _proof(bundle, state)
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        line(f"{name.removesuffix('_at_ms').replace('_', ' '):<18}{_shown(name, value)}")
    if bundle is None:
        line("Nothing of this is proven: --trust names the bundle of the day, which says whose key signed it.")


def open_(
    file: _File,
    *,
    folder: KeysOption = None,
    who: _As = None,
    key: Annotated[
        str | None,
        typer.Option("--message-key", metavar="HEX", help="Key of this one message, of `reveal`.", show_default=False),
    ] = None,
    trust: _Trust = None,
    roots: _Roots = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: _Json = False,
) -> None:
    """Decrypt one sealed message, with a key file or with the key of this one message, and print its content.

    Example: [bold]messaging open message.bin --keys keys --as ops:alice[/bold]
    """
    sighting = look_at(read_input(file))
    bundle = None if trust is None else read_trust(trust, roots)
    state = None if bundle is None else prove(sighting, bundle)
    found = _octets(key) if key is not None else _message_key(sighting, folder, who, passphrase_file, passphrase_fd)
    content = content_record(sighting, open_with(sighting, found))
    if as_json:
        print_json(sighting_record(sighting) | _proof(bundle, state) | content)
        return
    if bundle is None:
        line(f"unproven: says to be from {sighting.header.address.sender} (--trust checks it)", stderr=True)
    else:
        line(f"from {sighting.header.address.sender}, proven by version {bundle.version}", stderr=True)
    print_json(content["payload"] if not content["headers"] else content)


def reveal(
    file: _File,
    *,
    folder: KeysOption = None,
    who: _As = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Print the key of this one message, for an auditor: it opens this message and no other, and signs nothing.

    Example: [bold]messaging reveal message.bin --as ops:alice[/bold], then
    [bold]messaging open message.bin --message-key HEX[/bold]
    """
    sighting = look_at(read_input(file))
    plain_line(_message_key(sighting, folder, who, passphrase_file, passphrase_fd).hex())


def read_trust(path: Path, roots: Path | None) -> TrustBundle:
    """Return the verified bundle of a file, or of a folder with one."""
    file = path / "trust.bundle" if path.is_dir() else path
    beside = file.parent.parent if file.parent.name == "bundles" else file.parent
    pins = load_pins(roots) if roots is not None else pins_beside(beside)
    return verify_bundle(read_input(file), roots=pins.roots, threshold=pins.threshold, realm=pins.realm)


def sighting_record(sighting: Sighting) -> dict[str, Any]:
    """Return what sealed bytes say of themselves, as plain values."""
    header, address = sighting.header, sighting.header.address
    return {
        "kind": address.kind.word,
        "name": header.name,
        "version": header.version,
        "sender": address.sender,
        "audience": address.aud,
        "message_id": str(UUID(bytes=header.mid)),
        "issued_at_ms": header.iat,
        "expires_at_ms": header.exp,
        "correlation_id": None if header.corr is None else str(UUID(bytes=header.corr)),
        "signing_key": address.skid.hex(),
        "bundle_version": header.ext.get("bv"),
        "readable_by": [f"{row.rid} (key {row.rkid.hex()})" for row in sighting.block.rows],
        "batch": f"{sighting.parts.index + 1} of {sighting.parts.size}",
        "size_bytes": len(sighting.body),
        "leaf": sighting.leaf.hex(),
        "extensions": {name: value for name, value in header.ext.items() if name != "bv"},
    }


def content_record(sighting: Sighting, content: Content) -> dict[str, Any]:
    """Return the content of a message as plain values; bytes that are no values as base64."""
    is_plain = content.codec in (CODEC_MSGPACK, CODEC_JSON) and sighting.header.address.kind is not Kind.FAULT
    payload: Any = base64.b64encode(content.payload).decode()
    if is_plain:
        try:
            payload = unpack(content.payload, content.codec)
        except InvalidPayloadError:
            is_plain = False
    return {"encoding": "plain" if is_plain else "base64", "headers": dict(content.headers), "payload": payload}


def _message_key(sighting: Sighting, folder: Path | None, who: str | None, file: Path | None, fd: int | None) -> bytes:
    identity = who if who is not None else _only_key_file(folder)
    keyring, _ = opened(key_path(identity, folder), file=file, fd=fd)
    return message_key(sighting, keyring)


def _only_key_file(folder: Path | None) -> str:
    paths = key_files_in(key_path("x", folder).parent)
    if len(paths) != 1:
        there = ", ".join(path.name for path in paths) or "none"
        raise UsageError(f"say whose key opens it with --as IDENTITY; key files there: {there}")
    return str(paths[0])


def _proof(bundle: TrustBundle | None, state: KeyState | None) -> dict[str, Any]:
    if bundle is None or state is None:
        return {"proven": False}
    return {"proven": state is not KeyState.COMPROMISED, "key_state": state.value, "proven_by_bundle": bundle.version}


def _shown(name: str, value: Any) -> str:
    if name.endswith("_at_ms"):
        return shown_time(value)
    if isinstance(value, list):
        return escaped(", ".join(value))
    return escaped(value)


def _octets(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != MESSAGE_KEY_BYTES:
        raise UsageError(f"--message-key has {2 * MESSAGE_KEY_BYTES} hex digits, as `messaging reveal` prints it")
    return raw
