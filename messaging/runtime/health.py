"""`Health`: is the process alive, may it be given work, and what is wrong, in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from messaging.transports.base import LinkState, TransportState

__all__ = ["Health", "judge_health"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What probes and operators see.

    Attributes:
        is_live: The process works; a restart would not help while it is True.
        is_ready: Every consumer is fed and nothing is held.
        problems: One line each, with the remedy.
        details: Figures: link, running handlers, counts by outcome.
    """

    is_live: bool
    is_ready: bool
    problems: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


def judge_health(
    *,
    is_started: bool,
    link: TransportState,
    consumers: Mapping[str, bool],
    trouble: str | None,
    lag: str | None = None,
    details: Mapping[str, object],
) -> Health:
    """Return the health of a service.

    Args:
        is_started: Whether it runs and is not stopping.
        link: The transport's state.
        consumers: Queue → whether the broker feeds it.
        trouble: Why deliveries are held, if they are.
        lag: That the trust bundle stays behind, if it does.
        details: Figures to pass on.
    """
    problems = [] if is_started else ["the service does not run (starting, stopping or stopped)"]
    if link.problem is not None:
        problems.append(link.problem)
    elif link.link is not LinkState.CONNECTED and is_started:
        problems.append(f"the link to the broker is {link.link.value}; see `messaging doctor`")
    problems += [
        f"nothing is delivered from {queue}; see `messaging doctor`" for queue, ok in consumers.items() if not ok
    ]
    if trouble is not None:
        problems.append(f"deliveries are held: {trouble}")
    if lag is not None:
        problems.append(lag)
    facts = {"link": link.link.value, "dropped_acks": link.dropped_acks, **details}
    return Health(is_live=True, is_ready=not problems, problems=tuple(problems), details=facts)
