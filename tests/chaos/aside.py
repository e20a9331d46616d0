"""What services set aside: refused as not allowed or not readable, or kept as a sample of what nobody signed.

Where everybody is who he says, nothing belongs there.
"""

from tests.chaos.rig import Rig

__all__ = ["set_aside"]

_SERVICES = ("chaos", "witness")
_PARTS = ("refused", "quarantine")


async def set_aside(rig: Rig) -> dict[str, int]:
    """Return how many messages lie in queues where none should be, by queue; without those that are empty."""
    queues = [rig.operator.names.queue(service, part) for service in _SERVICES for part in _PARTS]
    depths = {queue: await rig.operator.transport.depth(queue) for queue in queues}
    return {queue: depth.messages for queue, depth in depths.items() if depth is not None and depth.messages}
