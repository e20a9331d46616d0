"""Takes a newer trust bundle without a restart; a bad one is logged and the last good one stays (docs/trust.md)."""

import asyncio
from pathlib import Path

import structlog

from messaging.errors import ConfigurationError
from messaging.security.trust import TrustStore

__all__ = ["watch_trust"]

log = structlog.get_logger()


async def watch_trust(trust: TrustStore, path: Path, *, poll_s: float) -> None:
    """Look at the bundle's file every `poll_s` seconds, for ever."""
    while True:
        await asyncio.sleep(poll_s)
        try:
            if trust.reload(path):
                log.info("trust.reloaded", version=trust.current.version)
        except ConfigurationError as error:
            log.warning("trust.rejected", reason=str(error))
