"""Takes a newer trust bundle without a restart; a bad one is logged and the last good one stays (docs/trust.md)."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from messaging.errors import ConfigurationError
from messaging.runtime.trust_record import TrustRecord
from messaging.security.trust import Freshness, TrustStore

__all__ = ["watch_trust"]

_PAUSE_S: Final = 1.0
_WARN_EVERY_S: Final = 600.0

log = structlog.get_logger()


async def watch_trust(
    trust: TrustStore, path: Path, *, poll_s: float, lagging: asyncio.Event, record: TrustRecord | None = None
) -> None:
    """Look at the bundle's file every `poll_s` seconds, for ever; sooner when this service seems to lag behind.

    Args:
        trust: The bundle in force.
        path: The file.
        poll_s: Seconds between two looks.
        lagging: Set when a message claims that there is a newer bundle. Claims may be forged, so they never make it
            more than one look a second.
        record: Told after each look, so that it remembers what is in force.
    """
    loop = asyncio.get_running_loop()
    pause_s, warn_at_s = min(poll_s, _PAUSE_S), 0.0
    while True:
        await asyncio.sleep(pause_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_s - pause_s):
                await lagging.wait()
        lagging.clear()
        try:
            if trust.reload(path):
                log.info("trust.reloaded", version=trust.current.version, settles_in_s=round(trust.settles_in_s()))
        except ConfigurationError as error:
            log.warning("trust.rejected", reason=str(error))
        if record is not None:
            await record.keep()
        if trust.freshness() is not Freshness.FRESH and loop.time() >= warn_at_s:
            warn_at_s = loop.time() + _WARN_EVERY_S
            log.warning("trust.expired", version=trust.current.version, freshness=trust.freshness().value)
