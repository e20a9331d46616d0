"""Compares the topology that services need with the broker's: by the management API if there is one, else by AMQP."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from messaging.cli.exits import UsageError
from messaging.cli.link import connected
from messaging.cli.management import management_of
from messaging.cli.render import line
from messaging.core.topology import Binding, Topology
from messaging.core.topology_plan import Existing, Plan, Todo, plan_topology
from messaging.service import Service
from messaging.settings import Settings

__all__ = ["Comparison", "compare", "comparison_record", "recorded_bindings", "show_comparison"]

_NOTHING: Final[tuple[str, ...]] = ()
_WORK: Final = ("commands", "requests", "events", "faults")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A plan, and what it does not know.

    Attributes:
        wanted: What should exist.
        plan: What separates that from what does.
        unchecked: What nobody could be asked about, in words.
    """

    wanted: Topology
    plan: Plan
    unchecked: tuple[str, ...] = ()

    @property
    def surplus(self) -> tuple[Binding, ...]:
        """Bindings that no handler needs any more."""
        return tuple(step.binding for step in self.plan.of(Todo.UNBIND) if step.binding is not None)


async def compare(
    settings: Settings, services: Sequence[Service], wanted: Topology, *, recorded: frozenset[Binding] | None
) -> Comparison:
    """Compare what services need with what is there.

    Args:
        settings: Where the broker is.
        services: The services.
        wanted: What they need.
        recorded: Bindings that an earlier deploy made, for brokers without a management API.

    Raises:
        ConnectionLostError: no broker, or the management API that the settings name does not answer.
    """
    names = [service.name for service in services]
    management = management_of(settings)
    if management is not None:
        existing, unchecked = management.existing(), _NOTHING
    else:
        existing, unchecked = await _surveyed(settings, services, wanted, recorded)
    plan = plan_topology(wanted, existing, names=settings.names, services=names)
    return Comparison(wanted=wanted, plan=plan, unchecked=unchecked)


def recorded_bindings(file: Path) -> frozenset[Binding]:
    """Return the bindings of an earlier `topology show --json`.

    Raises:
        UsageError: the file holds something else.
    """
    try:
        record = json.loads(file.read_bytes())
        return frozenset(_binding(entry) for entry in record["bindings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is no output of `messaging topology show --json`: {error}") from error


_MARKS: Final = {Todo.CREATE: "+", Todo.DIFFERS: "~", Todo.UNBIND: "-", Todo.LEFT_OVER: "?"}
_WORDS: Final = {
    Todo.CREATE: "is missing; `apply` makes it",
    Todo.DIFFERS: "differs; `apply` refuses it",
    Todo.UNBIND: "has no handler any more; `apply --prune` takes it away",
    Todo.LEFT_OVER: "is not used any more; nothing here deletes queues",
}


def show_comparison(comparison: Comparison) -> None:
    """Print what would have to happen, and what could not be checked."""
    for step in comparison.plan.steps:
        line(f"{_MARKS[step.todo]} {step.what} {_WORDS[step.todo]}")
        for difference in step.differences:
            line(f"    {difference}")
    if comparison.plan.of(Todo.DIFFERS):
        line("What differs holds work and is never deleted here: docs/operations.md, Arguments that differ.")
    if comparison.plan.is_empty:
        wanted = comparison.wanted
        line(f"Nothing to do: {len(wanted.exchanges)} exchanges and {len(wanted.queues)} queues are as wanted.")
    for words in comparison.unchecked:
        line(f"not checked: {words}", stderr=True)


def comparison_record(comparison: Comparison) -> dict[str, object]:
    """Return the comparison for `--json`."""
    return {
        "steps": [
            {
                "todo": step.todo.value,
                "what": step.what,
                "differences": [
                    {"argument": one.argument, "wanted": one.wanted, "found": one.found} for one in step.differences
                ],
            }
            for step in comparison.plan.steps
        ],
        "not_checked": list(comparison.unchecked),
    }


async def _surveyed(
    settings: Settings, services: Sequence[Service], wanted: Topology, recorded: frozenset[Binding] | None
) -> tuple[Existing, tuple[str, ...]]:
    needed = {queue.name for queue in wanted.queues}
    work = [settings.names.queue(service.name, part) for service in services for part in _WORK]
    async with connected(settings, name="topology plan") as transport:
        found = await transport.survey(wanted, also=tuple(name for name in work if name not in needed))
    existing, unchecked = found.existing, [f"{what}: {why}" for what, why in sorted(found.unknown.items())]
    unchecked.append("arguments after the first one that differs: AMQP tells no more; apply, then plan again")
    if recorded is None:
        unchecked.append(
            "bindings: AMQP cannot list them. Set MESSAGING_MANAGEMENT_URL, or name with --recorded what "
            "`messaging topology show --json` printed for the version before"
        )
        return existing, tuple(unchecked)
    unchecked.append("bindings that the recorded version did not have either, and whether each wanted one exists")
    # What is wanted is taken to be bound: `apply` binds it again, which changes nothing where it is.
    bindings = frozenset(recorded | set(wanted.bindings))
    return Existing(exchanges=existing.exchanges, queues=existing.queues, bindings=bindings), tuple(unchecked)


def _binding(entry: Any) -> Binding:
    return Binding(exchange=str(entry["exchange"]), queue=str(entry["queue"]), routing_key=str(entry["routing_key"]))
