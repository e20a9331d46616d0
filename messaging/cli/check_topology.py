"""Looks for drift: other arguments, policies that break guarantees, bindings that nobody needs, rungs that are stuck.

Arguments, bindings and policies come from the management API where the settings name one; AMQP alone tells the first
argument that differs and nothing of policies, and the findings say so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.management import Management, SeenQueue
from messaging.cli.render import counted
from messaging.cli.topology_compare import Comparison
from messaging.core.topology import Names
from messaging.core.topology_plan import Todo
from messaging.errors import MessagingError

__all__ = ["check_comparison", "check_management", "check_policies", "check_rungs"]

_WAY_OUT: Final = (
    "do not delete it, it holds work: run the new version under another MESSAGING_NAMESPACE, leave the old one running "
    "until its queues are empty, then remove those; or restore the setting"
)
# What a policy may set without breaking a promise, and what breaks one: docs/topology.md, "What the versions do".
_LOSSY: Final = ("message-ttl", "expires", "max-length", "max-length-bytes")
_REJECTS: Final = "reject-publish"
_KEEPING: Final = ("commands", "events", "dead", "refused")
_NOTICES: Final = ("faults", "quarantine")
_LIMITS: Final = ("max-length", "max-length-bytes")


def check_management(management: Management) -> list[Finding]:
    """Return what the management API says of the broker as a whole."""
    check = "management"
    try:
        version, disabled = management.version(), management.disabled_flags()
    except MessagingError as error:
        return [failed(check, str(error), remedy="mend MESSAGING_MANAGEMENT_URL, or unset it")]
    findings = [fine(check, f"RabbitMQ {version} answers at {management.address}")]
    if disabled:
        shown = ", ".join(disabled[:5]) + (" …" if len(disabled) > 5 else "")
        words = f"{counted(len(disabled), 'stable one')} disabled: {shown}"
        findings.append(warned("feature flags", words, remedy="rabbitmqctl enable_feature_flag all"))
    else:
        findings.append(fine("feature flags", "all stable ones are enabled"))
    return findings


def check_comparison(name: str, comparison: Comparison) -> list[Finding]:
    """Return how the topology of a service differs from what it should be."""
    check, plan = f"{name} topology", comparison.plan
    findings = []
    for step in plan.of(Todo.DIFFERS):
        words = f"{step.what}: {'; '.join(map(str, step.differences))}"
        findings.append(failed(check, words, remedy=_WAY_OUT))
    missing = plan.of(Todo.CREATE)
    if missing:
        words = f"{counted(len(missing), 'thing')} missing, the first: {missing[0].what}"
        findings.append(failed(check, words, remedy="start the service, or run `messaging topology apply`"))
    findings += [
        warned(check, f"{step.what}: no handler needs it", remedy="`messaging topology apply --prune` takes it away")
        for step in plan.of(Todo.UNBIND)
    ]
    findings += [
        warned(check, f"{step.what} is not used any more", remedy="let it run empty, then delete it by hand")
        for step in plan.of(Todo.LEFT_OVER)
    ]
    if not findings:
        wanted = comparison.wanted
        findings.append(fine(check, f"{len(wanted.exchanges)} exchanges and {len(wanted.queues)} queues are as wanted"))
    return findings


def check_policies(queues: Sequence[SeenQueue], names: Names, services: Sequence[str]) -> list[Finding]:
    """Return which effective policies break what is promised of the services' queues."""
    roles = {names.queue(service, part): (service, part) for service in services for part in (*_KEEPING, *_NOTICES)}
    findings = []
    for queue in queues:
        service, part = roles.get(queue.name) or (_service_of_rung(queue.name, names, services), "rung")
        if service and not queue.is_up:
            findings.append(
                failed(f"{service} queues", f"{queue.name} does not run", remedy="start the broker's nodes")
            )
        broken = _broken(part, queue.effective) if service else ()
        findings += [
            failed(
                f"{service} policies",
                f"policy {queue.policy!r} on {queue.name} sets {words}",
                remedy="rabbitmqctl clear_policy, or a pattern that spares the queues of this namespace",
            )
            for words in broken
        ]
    if not any("policies" in finding.check for finding in findings):
        findings.append(fine("policies", "none touches what the queues promise"))
    return findings


def _broken(part: str, effective: Mapping[str, Any]) -> list[str]:
    if part in _NOTICES:
        return []
    found = []
    overflow = effective.get("overflow")
    if overflow is not None and overflow != _REJECTS:
        found.append(f"overflow={overflow}, which drops messages without a word")
    for key in _LOSSY:
        # A bound that rejects makes publishers wait; `drop-head` is told above.
        if key in effective and key not in _LIMITS:
            found.append(f"{key}={effective[key]}, which takes messages away")
        elif key in effective and overflow is None and part == "rung":
            found.append(f"{key}={effective[key]}, which stops retries when it is reached")
    if "delivery-limit" in effective and part in ("dead", "refused"):
        found.append(f"delivery-limit={effective['delivery-limit']}: looking at a letter so often takes it away")
    return found


def _service_of_rung(queue: str, names: Names, services: Sequence[str]) -> str:
    return next((service for service in services if queue.startswith(names.rung_prefix(service))), "")


def check_rungs(queues: Sequence[SeenQueue], names: Names, services: Sequence[str]) -> list[Finding]:
    """Return which rungs cannot let go of what they have held long enough.

    AMQP does not tell: what has expired and finds no room is counted apart.
    """
    findings = []
    for service in services:
        rungs = [queue for queue in queues if queue.name.startswith(names.rung_prefix(service))]
        stuck = [queue for queue in rungs if queue.dead_lettering]
        findings += [
            warned(
                f"{service} rungs",
                f"{counted(queue.dead_lettering, 'message')} cannot leave {queue.name}",
                remedy="the queue they come back to is full or down: look at its policy and its node",
            )
            for queue in stuck
        ]
        if rungs and not stuck:
            findings.append(fine(f"{service} rungs", "let go of what they hold"))
    return findings
