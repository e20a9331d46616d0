"""`TrustFolder`: where bundles are made. Changes gather in a draft; signatures turn it into the bundle (docs/trust.md).

| file | |
|---|---|
| `trust.roots` | the root keys of the realm, and how many must sign |
| `trust.bundle` | the bundle in force |
| `trust.draft` | the next one: same form, not enough signatures yet |
| `parts/` | the public parts that went in |
| `bundles/` | every bundle that was ever signed: who checks an old message needs that day's |

It holds no private key. Whoever brings a root key signs the draft where it is, or on another machine: the draft is one
file that travels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messaging.errors import ConfigurationError
from messaging.security.bundle import TrustBundle
from messaging.security.bundle_edit import LIFE_MS, Content, renew
from messaging.security.bundle_format import (
    BUNDLE_MAX,
    add_signature,
    parse_content,
    sign_bundle,
    signers_of,
    split_bundle,
    verify_bundle,
)
from messaging.security.keys import SigningKey
from messaging.security.private_files import write_file
from messaging.security.public_part import PublicPart, import_part
from messaging.security.roots import PINS_FILE, Pins, load_pins
from messaging.security.strict_json import load_json
from messaging.security.trust import BUNDLE_FILE

__all__ = ["DRAFT_FILE", "Signing", "TrustFolder", "read_content"]

DRAFT_FILE: Final = "trust.draft"
ARCHIVE: Final = "bundles"
PARTS: Final = "parts"
PUBLIC_MODE: Final = 0o644
FOLDER_MODE: Final = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What one signature came to.

    Attributes:
        version: Of the bundle.
        signed: How many roots have signed it now.
        threshold: How many must.
        is_in_force: Whether it is the bundle now.
    """

    version: int
    signed: int
    threshold: int
    is_in_force: bool


class TrustFolder:
    """The bundle, its draft and its history in one folder.

    Args:
        path: The folder; it holds `trust.roots`.

    Raises:
        ConfigurationError: It has no usable roots file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pins: Pins = load_pins(path / PINS_FILE)

    @property
    def has_draft(self) -> bool:
        """Whether a change waits for signatures."""
        return (self.path / DRAFT_FILE).exists()

    def current(self) -> bytes | None:
        """Return the bundle in force, verified, or None before the first."""
        path = self.path / BUNDLE_FILE
        if not path.exists():
            return None
        raw = _read(path)
        self.verified(raw)
        return raw

    def verified(self, raw: bytes) -> TrustBundle:
        """Return what a bundle says if enough roots have signed it.

        Raises:
            ConfigurationError: They have not, or it is not strictly in form.
        """
        pins = self.pins
        return verify_bundle(raw, roots=pins.roots, threshold=pins.threshold, realm=pins.realm)

    def draft(self) -> bytes:
        """Return the draft.

        Raises:
            ConfigurationError: Nothing waits for signatures.
        """
        if not self.has_draft:
            raise ConfigurationError(
                f"no draft in {self.path}: nothing waits for a signature; `messaging trust add`, `revoke` or `renew` "
                "make one"
            )
        return _read(self.path / DRAFT_FILE)

    def content(self) -> Content:
        """Return what a change starts from: the draft if there is one, else the bundle in force.

        Raises:
            ConfigurationError: There is neither, or the draft has signatures, which a change would undo.
        """
        if self.has_draft:
            raw = self.draft()
            signed = len(signers_of(raw, self.pins.roots))
            if signed:
                raise ConfigurationError(
                    f"the draft in {self.path} has {signed} of {self.pins.threshold} signatures, which a change would "
                    "undo: sign it first, or `messaging trust discard` it"
                )
            return read_content(raw)
        current = self.current()
        if current is None:
            raise ConfigurationError(f"no trust bundle in {self.path}; `messaging trust init` makes the first draft")
        return read_content(current)

    def propose(self, content: Content, *, now_ms: int, life_ms: int = LIFE_MS) -> TrustBundle:
        """Make a content the draft, as the version after the one in force, issued now.

        Raises:
            ConfigurationError: No service would accept it; the draft stays as it was.
        """
        current = self.current()
        version = 1 if current is None else int(read_content(current)["version"]) + 1
        raw = sign_bundle(renew(content, version=version, now_ms=now_ms, life_ms=life_ms), [])
        bundle = self._parsed(raw)
        write_file(self.path / DRAFT_FILE, raw, replace=True, mode=PUBLIC_MODE)
        return bundle

    def discard(self) -> None:
        """Throw the draft away.

        Raises:
            ConfigurationError: There is none.
        """
        self.draft()
        (self.path / DRAFT_FILE).unlink()

    def sign(self, root: SigningKey, *, now_ms: int) -> Signing:
        """Add one signature to the draft; the last that is needed puts it in force, in one rename.

        Raises:
            ConfigurationError: No draft, a root that is not pinned, an expired draft, or one that the bundle in force
                has overtaken.
        """
        if root.kid not in {pin.kid for pin in self.pins.roots}:
            raise ConfigurationError(
                f"root key {root.kid.hex()} is not among those of {self.path / PINS_FILE}; bring one of this realm"
            )
        raw = self.draft()
        bundle = self._parsed(raw)
        if bundle.expires_at_ms <= now_ms:
            raise ConfigurationError(
                f"draft version {bundle.version} has expired; make it anew with `messaging trust renew`"
            )
        current = self.current()
        if current is not None and self.verified(current).version >= bundle.version:
            raise ConfigurationError(
                f"draft version {bundle.version} is not newer than the bundle in force; `messaging trust discard` it "
                "and make the change again"
            )
        raw = add_signature(raw, root)
        signed = len(signers_of(raw, self.pins.roots))
        is_in_force = signed >= self.pins.threshold
        if is_in_force:
            self._put_in_force(raw, bundle)
        else:
            write_file(self.path / DRAFT_FILE, raw, replace=True, mode=PUBLIC_MODE)
        return Signing(version=bundle.version, signed=signed, threshold=self.pins.threshold, is_in_force=is_in_force)

    def history(self) -> list[Content]:
        """Return the contents of all bundles that were in force, oldest first; the last is the present one.

        Raises:
            ConfigurationError: One of them does not verify.
        """
        archive = self.path / ARCHIVE
        found: dict[int, Content] = {}
        for path in sorted(archive.glob("*.bundle")) if archive.is_dir() else ():
            raw = _read(path)
            found[self.verified(raw).version] = read_content(raw)
        current = self.current()
        if current is not None:
            content = read_content(current)
            found[int(content["version"])] = content
        return [found[version] for version in sorted(found)]

    def keep_part(self, raw: bytes, part: PublicPart) -> None:
        """Remember a public part that went into the draft."""
        self._folder(PARTS)
        write_file(self._part_path(part.identity), raw, replace=True, mode=PUBLIC_MODE)

    def part(self, identity: str) -> PublicPart | None:
        """Return the public part that an identity came in with, if it is remembered."""
        path = self._part_path(identity)
        if not path.exists():
            return None
        return import_part(_read(path), realm=self.pins.realm, where=f"public part {path}")

    def _put_in_force(self, raw: bytes, bundle: TrustBundle) -> None:
        self.verified(raw)
        archived = self._folder(ARCHIVE) / f"{bundle.version:08d}.bundle"
        # The archive first: a bundle that was in force and is not kept leaves old messages without a proof.
        write_file(archived, raw, replace=True, mode=PUBLIC_MODE)
        write_file(self.path / BUNDLE_FILE, raw, replace=True, mode=PUBLIC_MODE)
        (self.path / DRAFT_FILE).unlink()

    def _parsed(self, raw: bytes) -> TrustBundle:
        content, _ = split_bundle(raw)
        return parse_content(content, roots=self.pins.roots, realm=self.pins.realm)

    def _part_path(self, identity: str) -> Path:
        return self.path / PARTS / f"{identity.replace(':', '.')}.json"

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        try:
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"cannot make {folder}: {exc.strerror}; mend the folder's permissions") from exc
        return folder


def read_content(raw: bytes) -> Content:
    """Return the content of a bundle or draft as plain values, to be changed; nothing about it is proven.

    Raises:
        ConfigurationError: Not the form of a bundle.
    """
    content, _ = split_bundle(raw)
    return load_json(content, "the trust bundle").left()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_MAX + 1)
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}; mend its permissions") from exc
