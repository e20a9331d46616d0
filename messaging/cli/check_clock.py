"""Compares this machine's clock with the broker's, as the management API tells it with each answer."""

from typing import Final

from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.management import Management
from messaging.cli.render import shown_age
from messaging.core.ambient import Ambient
from messaging.errors import MessagingError

__all__ = ["check_clock"]

# The answer's time has whole seconds, and the way there takes its own.
_NOTICED_S: Final = 5.0
# Messages of a clock further ahead are held, then refused (docs/spec.md).
_TOLERANCE_S: Final = 60.0
_REMEDY: Final = "set the clock (timedatectl, chrony) here, or at the broker"


def check_clock(management: Management, ambient: Ambient) -> list[Finding]:
    """Return how far this machine's clock is from the broker's; nothing when the API does not tell the time."""
    try:
        theirs_ms = management.now_ms()
    except MessagingError:
        # That it does not answer is told by `check_management`.
        return []
    if theirs_ms is None:
        return []
    ahead_s = (ambient.now_ms() - theirs_ms) / 1000
    words = f"{shown_age(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the broker's"
    if abs(ahead_s) > _TOLERANCE_S:
        return [failed("clock and broker", f"{words}: messages are held, then refused", remedy=_REMEDY)]
    if abs(ahead_s) > _NOTICED_S:
        return [warned("clock and broker", words, remedy=_REMEDY)]
    return [fine("clock and broker", "within seconds of each other")]
