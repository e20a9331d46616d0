"""How long to wait before connecting again: full jitter, so that a thousand clients do not come back as one."""

from typing import Final

__all__ = ["reconnect_delay_s"]

_BASE_S: Final = 0.1
_FIRST_MINUTE_S: Final = 60.0
# A broker that restarts is back within seconds: look often. Later it is an outage: look rarely.
_CAP_FIRST_MINUTE_S: Final = 5.0
_CAP_LATER_S: Final = 15.0
_EXPONENT_MAX: Final = 16


def reconnect_delay_s(attempt: int, *, down_s: float, jitter: float) -> float:
    """Return how long to wait before the next attempt to connect.

    Args:
        attempt: The attempt that just failed, from 1.
        down_s: How long there has been no connection, seconds.
        jitter: Uniform sample in [0, 1).

    Returns:
        Seconds in [0, 5) during the first minute, in [0, 15) later.

    Source: docs/topology.md.
    """
    cap_s = _CAP_FIRST_MINUTE_S if down_s < _FIRST_MINUTE_S else _CAP_LATER_S
    return jitter * min(cap_s, _BASE_S * 2.0 ** min(attempt, _EXPONENT_MAX))
