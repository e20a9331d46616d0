"""Messages that wait for their signature with all others of their tick, as those of a publisher do."""

import asyncio

from messaging.core.sealed import Sealed
from messaging.runtime.signing import TickSigner
from messaging.security.seal import Unsigned

__all__ = ["signed"]


async def signed(signer: TickSigner, unsigned: Unsigned) -> Sealed:
    """Return the message as it is signed at the end of this tick."""
    outcome: asyncio.Future[Sealed] = asyncio.get_running_loop().create_future()
    signer.pass_on(unsigned, outcome.set_result, waiting=outcome)
    return await outcome
