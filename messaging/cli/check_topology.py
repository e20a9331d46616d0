"""Looks for drift: what is missing, other arguments, bindings that nobody needs; and what the management API says.

Arguments and bindings come from that API where the settings name one; AMQP alone tells the first argument that differs,
and nothing of bindings.
"""

from collections.abc import Sequence
from typing import Final

from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.management import Management
from messaging.cli.render import counted
from messaging.cli.topology_compare import Comparison
from messaging.core.topology import Names, Queue
from messaging.core.topology_plan import Step, Todo
from messaging.errors import MessagingError

__all__ = ["WAY_OUT", "check_comparison", "check_management"]

WAY_OUT: Final = (
    "do not delete it, it holds work: run the new version under another MESSAGING_NAMESPACE, leave the old one running "
    "until its queues are empty, then remove those; or restore the setting"
)
_APPLY: Final = "start the service, or run `messaging topology apply`"


def check_management(management: Management) -> list[Finding]:
    """Return what the management API says of the broker as a whole."""
    check = "management"
    try:
        version, disabled = management.version(), management.disabled_flags()
    except MessagingError as error:
        return [failed(check, str(error), remedy="mend MESSAGING_MANAGEMENT_URL, or unset it")]
    findings = [fine(check, f"RabbitMQ {version} answers at {management.address}")]
    if disabled is None:
        words = (
            "not looked at: the broker tells them to administrators alone; `rabbitmqctl list_feature_flags` shows them"
        )
        findings.append(fine("feature flags", words))
    elif disabled:
        shown = ", ".join(disabled[:5]) + (" …" if len(disabled) > 5 else "")
        words = f"{counted(len(disabled), 'stable one')} disabled: {shown}"
        findings.append(warned("feature flags", words, remedy="rabbitmqctl enable_feature_flag all"))
    else:
        findings.append(fine("feature flags", "all stable ones are enabled"))
    return findings


def check_comparison(name: str, comparison: Comparison, names: Names) -> list[Finding]:
    """Return how the topology of a service differs from what it should be.

    Args:
        name: The service.
        comparison: Of what it needs, without delay levels.
        names: The namespace.
    """
    check, plan = f"{name} topology", comparison.plan
    findings = []
    for step in plan.of(Todo.DIFFERS):
        words = f"{step.what}: {'; '.join(map(str, step.differences))}"
        findings.append(failed(check, words, remedy=WAY_OUT))
    findings += _missing(name, comparison, names)
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


def _missing(name: str, comparison: Comparison, names: Names) -> list[Finding]:
    missing = comparison.plan.of(Todo.CREATE)
    gone = {step.thing.name for step in missing if isinstance(step.thing, Queue)}
    if all(queue.name in gone for queue in comparison.wanted.queues):
        # Never started here: that is one thing to say, not three.
        return _first_of(missing, f"{name} topology", "")
    dead = names.queue(name, "dead")
    rungs = [step for step in missing if step.name.startswith(names.rung_prefix(name))]
    graves = [step for step in missing if step.name in (dead, names.undeliverable_exchange(name))]
    rest = [step for step in missing if step not in rungs and step not in graves]
    return [
        *_first_of(rest, f"{name} topology", ""),
        *_first_of(rungs, f"{name} rungs", ": what fails cannot wait for its next try, and is not acknowledged"),
        *_first_of(graves, f"{name} dead letters", ": what cannot succeed has nowhere to go, and is not acknowledged"),
    ]


def _first_of(missing: Sequence[Step], check: str, harm: str) -> list[Finding]:
    if not missing:
        return []
    words = f"{counted(len(missing), 'thing')} missing, the first: {missing[0].what}"
    return [failed(check, words + harm, remedy=_APPLY)]
