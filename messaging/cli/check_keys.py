"""Looks at keys and trust: files and modes, key files that open, the bundle that they verify, its age, the clock."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from messaging.cli.check_key_life import check_key_life
from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.key_head import key_files_in, read_head
from messaging.cli.render import shown_age
from messaging.core.ambient import Ambient
from messaging.errors import ConfigurationError
from messaging.security.bundle import TrustBundle
from messaging.security.keyfile import load_keyring
from messaging.security.keyring import Keyring, check_keyring
from messaging.security.trust import BUNDLE_FILE, Freshness, TrustStore
from messaging.settings import Settings

__all__ = ["KeyCheck"]

_EXPIRES_SOON_S: Final = 2 * 24 * 3600.0
# Messages of a clock further ahead are held, then refused (docs/spec.md).
_CLOCK_TOLERANCE_MS: Final = 60_000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WRITABLE_BY_OTHERS: Final = 0o022


@dataclass(slots=True, kw_only=True)
class KeyCheck:
    """Looks at the keys folder of the settings.

    Attributes:
        settings: Where the keys are.
        ambient: Gives the time.
        passphrase: Opens key files that are sealed; None leaves those closed.
        bundle: The verified bundle, once `findings` has found one.
    """

    settings: Settings
    ambient: Ambient
    passphrase: bytes | None = None
    bundle: TrustBundle | None = field(default=None, init=False)

    def findings(self) -> Iterator[Finding]:
        """Yield what was found, from the folder inwards."""
        folder = self.settings.keys
        if folder is None:
            yield failed(
                "keys", "MESSAGING_KEYS is not set", remedy="point it at the folder that `messaging trust init` made"
            )
            return
        yield _folder(folder)
        if not folder.is_dir():
            return
        keyrings: list[Keyring] = []
        for path in key_files_in(folder):
            yield self._key_file(path, keyrings)
        if not key_files_in(folder):
            yield failed("key files", f"none in {folder}", remedy="make some with `messaging trust init`")
        for keyring in keyrings:
            yield from self._trust(keyring, folder / BUNDLE_FILE)
        if self.bundle is not None:
            yield from check_key_life(self.bundle, now_ms=self.ambient.now_ms())
            yield from self._bundle(self.bundle)

    def _key_file(self, path: Path, keyrings: list[Keyring]) -> Finding:
        check = f"key file {path.name}"
        try:
            if read_head(path).is_sealed and self.passphrase is None:
                return fine(check, "sealed with a passphrase; MESSAGING_PASSPHRASE_FILE would let me look inside")
            keyring = load_keyring(path, passphrase=self.passphrase)
        except ConfigurationError as error:
            return _by_error(check, error)
        keyrings.append(keyring)
        return fine(check, f"opens, holds the keys of {keyring.service}")

    def _trust(self, keyring: Keyring, path: Path) -> Iterator[Finding]:
        check = f"trust of {keyring.service}"
        store = TrustStore(keyring, ambient=self.ambient, minimum_version=self.settings.trust_min_version)
        try:
            store.reload(path)
            check_keyring(keyring, store.current)
        except (ConfigurationError, OSError) as error:
            yield _by_error(check, error)
        else:
            yield fine(check, f"bundle version {store.current.version} verifies against the pinned roots")
        if store.is_loaded and self.bundle is None:
            self.bundle = store.current
            yield self._freshness(store)

    def _freshness(self, store: TrustStore) -> Finding:
        left_s = (store.current.expires_at_ms - self.ambient.now_ms()) / 1000
        remedy = "sign a new bundle (development: run `messaging trust init --dev` again)"
        if store.freshness() is not Freshness.FRESH:
            return failed("bundle expiry", f"expired {shown_age(-left_s)} ago: grace ends after a day", remedy=remedy)
        if left_s < _EXPIRES_SOON_S:
            return warned("bundle expiry", f"expires in {shown_age(left_s)}", remedy=remedy)
        return fine("bundle expiry", f"expires in {shown_age(left_s)}")

    def _bundle(self, bundle: TrustBundle) -> Iterator[Finding]:
        ahead_ms = bundle.issued_at_ms - self.ambient.now_ms()
        if ahead_ms > _CLOCK_TOLERANCE_MS:
            yield failed(
                "clock",
                f"the bundle was issued {shown_age(ahead_ms / 1000)} in this machine's future",
                remedy="set the clock (timedatectl, chrony) here, or where the bundle was signed",
            )
        else:
            yield fine("clock", "not behind the bundle's time of issue")
        if bundle.is_development:
            yield self._development()

    def _development(self) -> Finding:
        settings = self.settings
        is_local = settings.is_embedded or all(urlsplit(url).hostname in _LOOPBACK for url in settings.broker_urls)
        if is_local:
            return fine("development keys", "on a broker of this machine, as they should be")
        remedy = "make real keys (docs/operations.md)"
        if settings.allow_dev_keys:
            return warned("development keys", "on a broker that others may reach, by your leave", remedy=remedy)
        return failed("development keys", "on a broker that is not on this machine: services refuse", remedy=remedy)


def _folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return failed("keys", f"there is no folder {folder}", remedy="mend MESSAGING_KEYS")
    if folder.stat().st_mode & _WRITABLE_BY_OTHERS:
        mode = stat.filemode(folder.stat().st_mode)
        return failed("keys", f"others may write to {folder} ({mode})", remedy=f"run `chmod go-w {folder}`")
    return fine("keys", f"{folder}")


def _by_error(check: str, error: ConfigurationError | OSError) -> Finding:
    words, _, remedy = str(error).partition("; ")
    return failed(check, words, remedy=remedy or "restore the file")
