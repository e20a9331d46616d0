"""`TrustRecord`: writes down which trust bundle a service uses, and refuses a start with an older one (docs/trust.md).

A running process never takes an older bundle. A restart would: whoever can write into the keys folder could bring back
one in which a stolen key was good. What the store remembers stands against that.
"""

import asyncio
from typing import Final

import structlog

from messaging.security.bundle import TrustBundle
from messaging.security.trust import TrustStore
from messaging.stores.base import SeenBundle, SeenBundles, StoreUnavailableError

__all__ = ["TrustRecord"]

_WAIT_S: Final = 5.0

log = structlog.get_logger()


class TrustRecord:
    """What a service has used, as its store remembers it."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._seen: SeenBundles | None = None
        self._recorded = b""

    async def begin(self, seen: SeenBundles, *, wait_forever: bool = False) -> None:
        """Compare the bundle in force with what is remembered, and remember it from now on.

        Args:
            seen: The memory.
            wait_forever: Wait for a store that does not answer, with a warning every 5 s.

        Raises:
            ConfigurationError: an older bundle, or other bytes under the version that was used.
            StoreUnavailableError: the store does not answer, and nobody wants to wait.
        """
        while True:
            try:
                await self._compare(seen)
            except StoreUnavailableError as error:
                if not wait_forever:
                    raise
                log.warning("trust.unrecorded", reason=str(error))
                await asyncio.sleep(_WAIT_S)
            else:
                self._seen = seen
                return

    async def keep(self) -> None:
        """Remember the bundle in force, if it is not yet; a store that does not answer is asked again next time."""
        bundle = self._trust.current
        if self._seen is None or bundle.generation == self._recorded:
            return
        try:
            await self._write(self._seen, bundle)
        except StoreUnavailableError as error:
            log.warning("trust.unrecorded", reason=str(error))

    async def _compare(self, seen: SeenBundles) -> None:
        newest = await seen.newest(self._trust.current.realm)
        if newest is not None:
            self._trust.check_seen(newest.version, newest.digest)
        await self._write(seen, self._trust.current)

    async def _write(self, seen: SeenBundles, bundle: TrustBundle) -> None:
        await seen.record(bundle.realm, SeenBundle(version=bundle.version, digest=bundle.generation))
        self._recorded = bundle.generation
