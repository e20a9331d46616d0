"""`TrustStore`: the trust bundle in force, replaced only by a newer one that holds (docs/trust.md, "Versions").

A bundle that does not verify, is older, or has the version of the current one with other bytes is refused, and the last
good one stays in force. When it expires, known keys go on for a day, loudly; then nothing is believed any more. What it
adds is accepted at once and used for sending half a minute later; what it takes away is gone at once.
"""

from enum import Enum
from pathlib import Path
from typing import Final

from messaging.core.ambient import Ambient
from messaging.errors import ConfigurationError
from messaging.security.bundle import TrustBundle
from messaging.security.bundle_format import BUNDLE_MAX, verify_bundle
from messaging.security.keyring import Keyring, check_keyring
from messaging.security.settling import Settling

__all__ = ["BUNDLE_FILE", "Freshness", "TrustStore", "open_trust"]

BUNDLE_FILE: Final = "trust.bundle"
GRACE_MS: Final = 24 * 3_600_000


class Freshness(Enum):
    """How old the bundle in force is: within its life, in the day after, or beyond."""

    FRESH = "fresh"
    GRACE = "grace"
    EXPIRED = "expired"


class TrustStore:
    """Holds the bundle in force.

    Args:
        keyring: Pins the roots and the realm.
        ambient: Gives the time.
        minimum_version: Lowest version to accept, remembered from earlier runs.
    """

    def __init__(self, keyring: Keyring, *, ambient: Ambient, minimum_version: int = 0) -> None:
        self._keyring = keyring
        self._ambient = ambient
        self._minimum_version = minimum_version
        self._current: TrustBundle | None = None
        self._settling = Settling(ambient=ambient)

    @property
    def is_loaded(self) -> bool:
        """Whether there is a bundle at all."""
        return self._current is not None

    @property
    def current(self) -> TrustBundle:
        """The bundle in force.

        Raises:
            ConfigurationError: None has been loaded.
        """
        if self._current is None:
            raise ConfigurationError(
                f"no trust bundle is loaded for {self._keyring.service!r}; put {BUNDLE_FILE} beside the key file, "
                "or make both with `messaging trust init --dev`"
            )
        return self._current

    def usable(self) -> TrustBundle:
        """Return the bundle in force if it may still be relied on.

        Raises:
            ConfigurationError: None has been loaded, or it is expired for more than a day.
        """
        # `current` says what to do when there is none.
        bundle = self._current or self.current
        if self._ambient.now_ms() > bundle.expires_at_ms + GRACE_MS:
            raise ConfigurationError(
                f"trust bundle version {bundle.version} is expired for more than a day; install a newer {BUNDLE_FILE}"
            )
        return bundle

    def for_sending(self) -> TrustBundle:
        """Return what to send by: the bundle in force, in its first half minute without what is new in it.

        Raises:
            ConfigurationError: As `usable` does.
        """
        bundle = self._current
        if bundle is None or self._ambient.now_ms() > bundle.expires_at_ms + GRACE_MS:
            bundle = self.usable()
        return self._settling.view(bundle)

    def settles_in_s(self) -> float:
        """Return in how many seconds everything in the bundle in force is used for sending too."""
        return self._settling.wait_s()

    def freshness(self) -> Freshness:
        """Return how old the bundle in force is.

        Raises:
            ConfigurationError: None has been loaded.
        """
        late_ms = self._ambient.now_ms() - self.current.expires_at_ms
        if late_ms <= 0:
            return Freshness.FRESH
        return Freshness.GRACE if late_ms <= GRACE_MS else Freshness.EXPIRED

    def replace(self, raw: bytes) -> TrustBundle:
        """Verify a bundle and put it in force.

        Args:
            raw: Content of `trust.bundle`.

        Raises:
            ConfigurationError: It does not verify, is too old, or contradicts the current one; that one stays.
        """
        keyring = self._keyring
        bundle = verify_bundle(raw, roots=keyring.roots, threshold=keyring.threshold, realm=keyring.realm)
        lowest = self._minimum_version if self._current is None else self._current.version
        if bundle.version < lowest:
            raise _older(bundle.version, lowest)
        if self._current is not None and bundle.version == lowest and bundle.generation != self._current.generation:
            raise _two_of(lowest)
        if self._ambient.now_ms() > bundle.expires_at_ms + GRACE_MS:
            raise ConfigurationError(
                f"trust bundle version {bundle.version} is expired for more than a day; install a newer one"
            )
        if self._current is None or self._current.generation != bundle.generation:
            self._settling.take(bundle, after=self._current)
            self._current = bundle
        return bundle

    def check_seen(self, version: int, digest: bytes) -> None:
        """Compare the bundle in force with the newest one that is remembered from earlier runs.

        Args:
            version: Its version.
            digest: Its generation.

        Raises:
            ConfigurationError: The one in force is older, or has that version with other bytes.
        """
        bundle = self.current
        if bundle.version < version:
            raise _older(bundle.version, version)
        if bundle.version == version and bundle.generation != digest:
            raise _two_of(version)

    def reload(self, path: Path) -> bool:
        """Read the file again.

        Returns:
            Whether another bundle is in force now.

        Raises:
            ConfigurationError: The file cannot be read, or its bundle is refused; the current one stays.
        """
        before = self._current
        after = self.replace(_read(path))
        return before is None or before.generation != after.generation


def open_trust(keyring: Keyring, path: Path, *, ambient: Ambient, minimum_version: int = 0) -> TrustStore:
    """Return a store with the bundle of a file in force, compared with the keyring.

    Raises:
        ConfigurationError: The bundle is missing, refused, or does not fit the keyring.
    """
    store = TrustStore(keyring, ambient=ambient, minimum_version=minimum_version)
    store.reload(path)
    check_keyring(keyring, store.current)
    return store


def _older(version: int, lowest: int) -> ConfigurationError:
    return ConfigurationError(
        f"trust bundle version {version} is older than version {lowest}, which was in force before; "
        "install the newest one"
    )


def _two_of(version: int) -> ConfigurationError:
    return ConfigurationError(
        f"two different trust bundles have version {version}; sign the newer one with version {version + 1}"
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_MAX + 1)
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"no trust bundle at {path}; set MESSAGING_KEYS to the folder that has it, or make one with "
            "`messaging trust init --dev`"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"cannot read the trust bundle {path}: {exc.strerror}; mend its permissions") from exc
