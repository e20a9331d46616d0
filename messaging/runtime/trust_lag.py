"""`TrustLag`: notices that others have a newer trust bundle, from messages that are proven (docs/trust.md, "Versions").

A claim in an unverified message says nothing; a verified sender that has had a newer bundle for minutes says that ours
does not arrive: its grants and keys are unknown here, and its removals are not obeyed.
"""

from typing import Final

from messaging.core.ambient import Ambient
from messaging.security.trust import TrustStore

__all__ = ["TrustLag"]

# Bundles are copied to many machines, one after the other; that is no trouble yet.
PATIENCE_S: Final = 300.0


class TrustLag:
    """How long verified messages have been ahead of this service's bundle."""

    def __init__(self, trust: TrustStore, *, ambient: Ambient) -> None:
        self._trust = trust
        self._ambient = ambient
        self._version = 0
        self._since_s = 0.0

    def note(self, version: int | None) -> None:
        """Take note of the bundle version that a verified message was sent with."""
        if version is None or version <= self._trust.current.version:
            return
        if not self._is_behind:
            self._since_s = self._ambient.monotonic_s()
        self._version = max(self._version, version)

    @property
    def problem(self) -> str | None:
        """What is wrong, once it has been wrong for five minutes."""
        if not self._is_behind or self._ambient.monotonic_s() - self._since_s < PATIENCE_S:
            return None
        return (
            f"trust bundle version {self._trust.current.version} is in force here, others have had version "
            f"{self._version} for five minutes; install it"
        )

    @property
    def _is_behind(self) -> bool:
        return self._trust.is_loaded and self._version > self._trust.current.version
