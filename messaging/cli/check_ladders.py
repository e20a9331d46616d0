"""Looks at what lets messages wait: rungs of the retry ladder and delay levels; missing ones, and those that are stuck.

What has expired and finds no room where it goes is counted apart by the broker: a queue that is stuck looks empty to
AMQP, and only the management API tells.
"""

from collections.abc import Sequence
from typing import Final

from messaging.cli.check_topology import WAY_OUT
from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.management import SeenQueue
from messaging.cli.render import counted
from messaging.cli.topology_compare import Comparison
from messaging.core.delays import LEVELS
from messaging.core.topology import Names
from messaging.core.topology_plan import Todo

__all__ = ["check_delays", "check_stuck"]

_UNBLOCK: Final = (
    "nothing is lost, it waits: look at policy and node of the queue it goes to, which is full or down; if an exchange "
    "is gone, `messaging topology apply` makes it again"
)


def check_stuck(queues: Sequence[SeenQueue], names: Names, services: Sequence[str]) -> list[Finding]:
    """Return which rungs and delay levels hold messages whose time has passed.

    Args:
        queues: All of the virtual host, as the management API shows them.
        names: The namespace.
        services: Whose ladders are looked at.
    """
    findings = []
    for service in services:
        levels = frozenset(names.delay(service, level) for level in range(LEVELS))
        rungs = [queue for queue in queues if queue.name.startswith(names.rung_prefix(service))]
        findings += _judged(f"{service} rungs", rungs)
        findings += _judged(f"{service} delay levels", [queue for queue in queues if queue.name in levels])
    return findings


def _judged(check: str, queues: Sequence[SeenQueue]) -> list[Finding]:
    stuck = [queue for queue in queues if queue.dead_lettering]
    if queues and not stuck:
        return [fine(check, "let go of what they hold")]
    return [
        warned(
            check,
            f"{counted(queue.dead_lettering, 'message')} cannot leave {queue.name}, though the time has passed",
            remedy=_UNBLOCK,
        )
        for queue in stuck
    ]


def check_delays(service: str, comparison: Comparison, *, are_wanted: bool) -> list[Finding]:
    """Return whether the delay levels of a service are there.

    Args:
        service: A service that handles commands.
        comparison: Of its levels alone.
        are_wanted: Whether somebody sends commands for later without a store; nobody can find that out at the broker.
    """
    check, plan = f"{service} delay levels", comparison.plan
    apply = f"run `messaging topology apply --delays` for {service}"
    missing, wanted = plan.of(Todo.CREATE), comparison.wanted
    if sum(step.thing is not None for step in missing) == len(wanted.exchanges) + len(wanted.queues):
        words = "none: whoever has no store cannot send it commands for later"
        return [failed(check, words, remedy=apply)] if are_wanted else [fine(check, words)]
    findings = [
        failed(check, f"{step.what}: {'; '.join(map(str, step.differences))}", remedy=WAY_OUT)
        for step in plan.of(Todo.DIFFERS)
    ]
    if missing:
        words = f"{counted(len(missing), 'thing')} missing, the first: {missing[0].what}"
        harm = "commands for later are refused, or end among the dead letters"
        findings.append(failed(check, f"{words}: {harm}", remedy=apply))
    return findings or [fine(check, f"{len(wanted.queues)} are as wanted")]
